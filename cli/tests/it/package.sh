# Runs in mount and process namespaces of its own, as root: $FOLDER has empty folders `upper` and `root`, $PACKAGE is the package.
set -eu
exec 2>&1
mount --make-rprivate /
mount -t tmpfs -o size=2g none "$FOLDER/upper"
mkdir "$FOLDER/upper/files" "$FOLDER/upper/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper/files,workdir=$FOLDER/upper/work" "$FOLDER/root" || { echo NO-OVERLAY; exit 0; }
mount -t proc proc "$FOLDER/root/proc"
mount --rbind /dev "$FOLDER/root/dev"
mount -t tmpfs none "$FOLDER/root/run"
mount -t tmpfs none "$FOLDER/root/tmp"
cp "$PACKAGE" "$FOLDER/root/tmp/forge.deb"
exec chroot "$FOLDER/root" /bin/sh -eu -c '
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
cd /
echo "== install"
dpkg --force-depends -i /tmp/forge.deb
echo "== installed"
dpkg-query -W -f "\${Status}\n" forge
/usr/bin/forge --version
getent passwd forge forge-70000 forge-70031
stat -c "%n %U:%G %a" /etc/forge /etc/forge/config /etc/forge/forge.toml
find /etc/systemd -name "forge*"
echo "== started"
forge config init /etc/forge/config >/dev/null 2>&1
chown -R root:forge /etc/forge/config
chmod -R g+rX /etc/forge/config
install -d -o forge -g forge -m 0700 /var/lib/forge
mkfifo /tmp/daemon.pipe
FORGE_LISTEN_API=127.0.0.1:0 FORGE_LISTEN_METRICS=127.0.0.1:0 \
  setpriv --reuid forge --regid forge --clear-groups --no-new-privs forge daemon --config /etc/forge/forge.toml >/tmp/daemon.pipe 2>&1 &
daemon=$!
exec 3</tmp/daemon.pipe
served=
# The pipe ends with the daemon: one that cannot serve ends this, too, and has said why.
while [ -z "$served" ] && read -r line <&3; do
  echo "$line"
  case "$line" in *"the daemon serves"*) served=yes ;; esac
done
[ -n "$served" ]
[ -e /var/lib/forge/addresses.json ]
cat <&3 &
kill -TERM "$daemon"
wait "$daemon"
echo "the daemon served"
echo "== upgrade"
echo "# mine" >> /etc/forge/forge.toml
chmod 0700 /etc/forge
dpkg --force-depends -i /tmp/forge.deb
tail -1 /etc/forge/forge.toml
stat -c "%a" /etc/forge
echo "== remove"
dpkg -r forge
test ! -e /usr/bin/forge
test ! -e /usr/lib/systemd/system/forge-daemon.service
test -e /etc/forge/forge.toml
echo "== purge"
dpkg -P forge
test ! -e /etc/forge/forge.toml
test -d /var/lib/forge/keys
echo "== by useradd"
rm -f /usr/bin/systemd-sysusers
for user in forge forge-70000 forge-70031; do userdel "$user"; done
dpkg --force-depends -i /tmp/forge.deb
getent passwd forge forge-70000 forge-70031
echo "== end"
'
