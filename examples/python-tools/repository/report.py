"""Reports how full the disks of the given folders are."""

import os
import shutil
import sys

from tabulate import tabulate


def main():
    rows = []
    for folder in sys.argv[1:]:
        total, used, _ = shutil.disk_usage(folder)
        rows.append([folder, f"{total >> 30} GiB", f"{100 * used // total} %"])
    print(os.environ["REPORT_TITLE"])
    # The survey's answer.
    print(tabulate(rows, headers=["folder", "size", "used"], tablefmt=os.environ["FORGE_VAR_FORMAT"]))


main()
