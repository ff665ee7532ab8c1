variable "stage" {
  type        = string
  default     = "staging"
  description = "Which of the deployments is migrated."

  validation {
    condition     = contains(["staging", "production"], var.stage)
    error_message = "The stage is staging or production, not ${var.stage}."
  }
}

variable "databases" {
  type    = list(string)
  default = ["shop", "billing"]
}

variable "destination_uri" {
  type    = string
  default = "mongodb+srv://shop.new.example.net"
}

variable "window" {
  type    = string
  default = "72h"

  validation {
    condition     = can(regex("^[0-9]+h$", var.window))
    error_message = "The window is written in whole hours."
  }
}

locals {
  source_hosts = [for n in range(1, 4) : format("shop-%d.%s.old.example.net:27017", n, var.stage)]
}
