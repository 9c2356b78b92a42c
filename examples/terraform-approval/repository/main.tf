# Stands in for machines: a resource of Terraform's own, which needs no provider and no cloud.
terraform {
  backend "local" {}
}

variable "machines" {
  type    = number
  default = 0
}

resource "terraform_data" "machine" {
  count = var.machines
  input = "machine-${count.index + 1}"
}

output "machines" {
  value = terraform_data.machine[*].output
}
