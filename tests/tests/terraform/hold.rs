//! Applies that take long: interrupted, out of time, killed.

use std::time::{Duration, Instant};

use rig::child_process::is_running;
use rig::{Output, Terraform};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;

use crate::scene::{ADDRESS, Scene, ends, says};

const PATIENCE: Duration = Duration::from_secs(60);

/// The processes of a plugin that serve this module's Terraform.
fn plugins(terraform: &Terraform) -> Vec<i32> {
    let marker = format!("TMPDIR={}", terraform.temporary_folder().display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let read = |name: &str| std::fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        String::from_utf8_lossy(&command).contains("terraform-provider-cutover")
            && environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
    })
    .collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts an apply and waits until its run copies.
async fn apply_that_waits(scene: &Scene) -> tokio::process::Child {
    let child = scene.terraform.start(["apply", "-auto-approve"]).unwrap();
    let start = Instant::now();
    loop {
        let status = scene.cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
        if status["migrations"][0]["phase"] == "copying" {
            return child;
        }
        assert!(start.elapsed() < PATIENCE, "no run copies: {status:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn process(child: &tokio::process::Child) -> Pid {
    Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn an_interrupt_ends_the_wait_and_not_the_run() {
    let scene = Scene::held().await.unwrap();
    scene.write("wait_for = \"ready\"", "").unwrap();
    let child = apply_that_waits(&scene).await;
    // As a terminal does: to every process of the group, the plugin too.
    kill_process_group(process(&child), Signal::INT).unwrap();
    let output: Output = scene.terraform.finish(child).await.unwrap();
    ends(&output, 1);
    says(&output, "interrupted before orders was ready; its run goes on");
    let state = scene.terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(state["phase"], "copying", "{state:#}");
    until("a plugin outlives its Terraform", || plugins(&scene.terraform).is_empty()).await;

    scene.let_go().await.unwrap();
    scene.cutover.wait_for_phase("orders", "ready", PATIENCE).await.unwrap();
    ends(&scene.terraform.plan().await.unwrap(), 0);
    let refreshed = scene.terraform.run(["refresh"]).await.unwrap();
    ends(&refreshed, 0);
    let now = scene.terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!((&now["phase"], &now["run"]), (&json!("ready"), &state["run"]));
}

#[tokio::test]
async fn a_wait_that_runs_out_of_time_is_taken_up_by_the_next_apply() {
    let scene = Scene::held().await.unwrap();
    let head = |patience: &str| {
        format!("wait_for = \"ready\"\n  timeouts {{\n    create = {patience:?}\n  }}")
    };
    scene.write(&head("3s"), "").unwrap();
    let output = scene.terraform.apply().await.unwrap();
    ends(&output, 1);
    says(&output, "orders did not reach ready in time [CUT0037]");
    let before = scene.terraform.attributes(ADDRESS).await.unwrap();
    scene.let_go().await.unwrap();
    // As the error says: how long the run takes from here is its own affair.
    scene.write(&head("100s"), "").unwrap();
    let planned = scene.terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "is tainted, so must be replaced");
    says(&planned, "orders exists already, declared just so");
    ends(&scene.terraform.apply().await.unwrap(), 0);
    let after = scene.terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!((&after["run"], &after["phase"]), (&before["run"], &json!("ready")), "{after:#}");
    ends(&scene.terraform.plan().await.unwrap(), 0);
}

#[tokio::test]
async fn no_plugin_outlives_a_killed_terraform() {
    let scene = Scene::held().await.unwrap();
    scene.write("wait_for = \"ready\"", "").unwrap();
    let child = apply_that_waits(&scene).await;
    let running = plugins(&scene.terraform);
    assert!(!running.is_empty(), "a plugin serves the apply");
    kill_process(process(&child), Signal::KILL).unwrap();
    until("a plugin outlives its Terraform", || running.iter().all(|id| !is_running(*id))).await;
    let left = std::fs::read_dir(scene.terraform.temporary_folder()).unwrap().count();
    assert_eq!(left, 0, "sockets are left behind");

    // The state never learnt of the run, which might be another state's: it is taken by an import
    // alone, as it is.
    scene.let_go().await.unwrap();
    std::fs::remove_file(scene.terraform.folder().join(".terraform.tfstate.lock.info"))
        .unwrap_or_default();
    let run = scene.cutover.status("orders").await.unwrap()["run"].clone();
    let output = scene.terraform.run(["apply", "-auto-approve", "-lock=false"]).await.unwrap();
    ends(&output, 1);
    says(&output, "which the state does not have");
    says(&output, "terraform import ADDRESS shop/orders");
    ends(&scene.terraform.run(["import", "-lock=false", ADDRESS, "shop/orders"]).await.unwrap(), 0);
    ends(&scene.terraform.run(["apply", "-auto-approve", "-lock=false"]).await.unwrap(), 0);
    let state = scene.terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!((&state["run"], &state["phase"]), (&run, &json!("ready")));
}
