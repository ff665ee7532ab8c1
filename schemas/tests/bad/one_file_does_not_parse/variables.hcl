variable "window" {
