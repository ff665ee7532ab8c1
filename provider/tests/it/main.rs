//! The command line and the Terraform plugin, as processes, against a daemon in memory.

mod cli;
mod plan_goldens;
mod plugin;
mod terraform_docs;
mod workflows;
