//! Many migrations, data sources, saved plans, Terraform's own tests, secrets.

use mongodb::bson::doc;
use serde_json::json;

use crate::scene::{ADDRESS, PASSWORD, Scene, WORKSPACE, ends, provider, says};

#[tokio::test]
async fn twenty_migrations_in_one_configuration() {
    let scene = Scene::set().await.unwrap();
    let client = scene.source.client().await.unwrap();
    for number in 0..20 {
        client
            .database(&format!("tenant{number}"))
            .collection("items")
            .insert_one(doc! { "_id": number })
            .await
            .unwrap();
    }
    let module = |head: &str| {
        format!(
            "{}resource \"cutover_migration\" \"tenants\" {{\n  for_each = toset([for number in \
             range(20) : \"tenant${{number}}\"])\n  \
             name = each.key\n  wait_for = \"ready\"\n  {head}\n{}  namespaces {{\n    include = \
             [\"${{each.key}}.*\"]\n  }}\n}}\n",
            provider(&scene.daemon.endpoint()),
            scene.sides("")
        )
    };
    scene.terraform.write("main.tf", &module("")).unwrap();
    ends(&scene.terraform.run(["validate"]).await.unwrap(), 0);
    let output = scene.terraform.apply().await.unwrap();
    ends(&output, 0);
    says(&output, "Apply complete! Resources: 20 added, 0 changed, 0 destroyed.");
    ends(&scene.terraform.plan().await.unwrap(), 0);
    let state = scene.terraform.attributes("cutover_migration.tenants[\"tenant7\"]").await.unwrap();
    assert_eq!(state["phase"], "ready", "{state:#}");
    scene.terraform.write("main.tf", &module("paused = true")).unwrap();
    let output = scene.terraform.apply().await.unwrap();
    ends(&output, 0);
    says(&output, "20 changed");
    let output = scene.terraform.run(["destroy", "-auto-approve"]).await.unwrap();
    ends(&output, 0);
    says(&output, "20 destroyed");
}

#[tokio::test]
async fn one_name_is_one_resource() {
    let scene = Scene::set().await.unwrap();
    let terraform = &scene.terraform;
    let second = |kind: &str| {
        let body = format!(
            "  name = \"orders\"\n{}  cutover {{\n    max_lag = \"30s\"\n  }}\n",
            scene.sides("")
        );
        match kind {
            "for_each" => format!(
                "resource \"cutover_migration\" \"others\" {{\n  for_each = toset([\"a\", \
                 \"b\"])\n{body}}}\n"
            ),
            _ => format!("resource \"cutover_migration\" \"other\" {{\n{body}}}\n"),
        }
    };
    let refused = async |module: &str| {
        terraform.write("main.tf", module).unwrap();
        let planned = terraform.plan().await.unwrap();
        ends(&planned, 1);
        says(&planned, "two resources have the name \"orders\"");
    };
    let alone = scene.module("wait_for = \"ready\"", "");
    // Both new; several of one resource; one new beside one that is there.
    refused(&format!("{alone}{}", second("one"))).await;
    refused(&format!("{}{}", provider(&scene.daemon.endpoint()), second("for_each"))).await;
    let status = scene.cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
    assert_eq!(status["migrations"], json!([]));
    terraform.write("main.tf", &alone).unwrap();
    ends(&terraform.apply().await.unwrap(), 0);
    terraform.write("main.tf", &format!("{alone}{}", second("one"))).unwrap();
    let planned = terraform.plan().await.unwrap();
    // Whichever of the two Terraform asks about first.
    ends(&planned, 1);
    assert_eq!(scene.cutover.status("orders").await.unwrap()["phase"], "ready");

    // Another state that declares the same just so does not get it, and nothing of it is cancelled.
    let state = terraform.folder().join("terraform.tfstate");
    let kept = std::fs::read(&state).unwrap();
    terraform.write("main.tf", &alone).unwrap();
    std::fs::remove_file(&state).unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "which the state does not have");
    std::fs::write(&state, kept).unwrap();

    // One that is in the state twice is reported, and not cancelled by taking one of them away.
    terraform.write("main.tf", &format!("{alone}{}", second("one"))).unwrap();
    ends(&terraform.run(["import", "cutover_migration.other", "shop/orders"]).await.unwrap(), 0);
    refused(&format!("{alone}{}", second("one"))).await;
    refused(&alone).await;
    ends(&terraform.run(["state", "rm", "cutover_migration.other"]).await.unwrap(), 0);
    ends(&terraform.plan().await.unwrap(), 0);
    // A replacement of one resource is no second one.
    let replaced = terraform.run(["plan", &format!("-replace={ADDRESS}")]).await.unwrap();
    ends(&replaced, 0);
    assert_eq!(scene.cutover.status("orders").await.unwrap()["phase"], "ready");
}

#[tokio::test]
async fn data_sources_tell_where_things_stand() {
    let scene = Scene::set().await.unwrap();
    let declaration = |extra: &str| {
        format!(
            "{}data \"cutover_preflight\" \"orders\" {{\n  name = \"orders\"\n{}}}\noutput \
             \"preflight\" {{\n  value = \
             data.cutover_preflight.orders\n}}\n{extra}",
            provider(&scene.daemon.endpoint()),
            scene.sides("")
        )
    };
    scene.terraform.write("main.tf", &declaration("")).unwrap();
    ends(&scene.terraform.apply().await.unwrap(), 0);
    let outputs = scene.terraform.succeed(["output", "-json"]).await.unwrap().json().unwrap();
    let found = &outputs["preflight"]["value"];
    assert_eq!(
        (&found["passed"], &found["forecast"]["documents"]),
        (&json!(true), &json!(500)),
        "{found:#}"
    );
    assert!(
        found["checks"].as_array().unwrap().iter().any(|check| check["outcome"] == "ok"),
        "{found:#}"
    );

    // One that is declared elsewhere: here by the command line.
    std::fs::create_dir(scene.terraform.folder().join("elsewhere")).unwrap();
    let hcl = format!(
        "daemon {{ workspace = \"billing\" }}\nmigration \"invoices\" {{\n  paused = true\n{}}}\n",
        scene.sides("")
    );
    scene.terraform.write("elsewhere/main.hcl", &hcl).unwrap();
    scene.cutover.succeed(["apply", "elsewhere", "--auto-approve"]).await.unwrap();
    let data = "data \"cutover_migration\" \"invoices\" {\n  name = \"invoices\"\n  workspace = \
         \"billing\"\n}\noutput \"invoices\" {\n  \
                value = data.cutover_migration.invoices\n}\n";
    scene.terraform.write("main.tf", &declaration(data)).unwrap();
    ends(&scene.terraform.apply().await.unwrap(), 0);
    let outputs = scene.terraform.succeed(["output", "-json"]).await.unwrap().json().unwrap();
    let found = &outputs["invoices"]["value"];
    assert_eq!(
        (&found["id"], &found["paused"]),
        (&json!("billing/invoices"), &json!(true)),
        "{found:#}"
    );
    scene
        .terraform
        .write("main.tf", &declaration(&data.replace("\"billing\"", "\"nobody\"")))
        .unwrap();
    let output = scene.terraform.plan().await.unwrap();
    ends(&output, 1);
    says(&output, "there is no migration invoices in workspace nobody [CUT0008]");
}

#[tokio::test]
async fn a_saved_plan_is_refused_when_somebody_was_faster() {
    let scene = Scene::set().await.unwrap();
    scene.write("wait_for = \"ready\"", "").unwrap();
    ends(&scene.terraform.apply().await.unwrap(), 0);
    scene.write("wait_for = \"ready\"", "window = \"72h\"").unwrap();
    ends(&scene.terraform.run(["plan", "-out=saved.tfplan"]).await.unwrap(), 0);
    // The command line changes the same migration, in the same workspace.
    let hcl = format!(
        "daemon {{ workspace = {WORKSPACE:?} }}\nmigration \"orders\" {{\n{}  cutover {{\n    \
         max_lag = \"30s\"\n    window = \"48h\"\n  }}\n}}\n",
        scene.sides("")
    );
    scene.terraform.write("main.hcl", &hcl).unwrap();
    scene.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    let output = scene.terraform.run(["apply", "saved.tfplan"]).await.unwrap();
    ends(&output, 1);
    says(&output, "migration orders has serial 2, and the plan was made on 1 [CUT0009]");
    // A refresh shows the other one's change.
    let planned = scene.terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "\"48h\" -> \"72h\"");

    // A migration that is declared otherwise is not taken over in silence.
    std::fs::remove_file(scene.terraform.folder().join("terraform.tfstate")).unwrap();
    let planned = scene.terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "shop has a migration orders already");
    says(&planned, "terraform import ADDRESS shop/orders");
}

#[tokio::test]
async fn terraforms_own_tests_run() {
    let scene = Scene::set().await.unwrap();
    scene.write("wait_for = \"ready\"", "").unwrap();
    let test = format!(
        "run \"the_run_gets_ready\" {{\n  assert {{\n    condition = {ADDRESS}.phase == \"ready\" \
         && {ADDRESS}.ready.value\n    error_message \
         = \"not ready\"\n  }}\n  assert {{\n    condition = {ADDRESS}.cutover.window == \
         \"120h\"\n    error_message = \"another window\"\n  }}\n}}\n"
    );
    scene.terraform.write("main.tftest.hcl", &test).unwrap();
    let output = scene.terraform.run(["test"]).await.unwrap();
    ends(&output, 0);
    says(&output, "1 passed, 0 failed");
    assert_eq!(scene.cutover.status("orders").await.unwrap()["phase"], "cancelled");
}

#[tokio::test]
async fn no_secret_is_in_a_plan_a_state_or_a_log() {
    let mut scene = Scene::with_users().await.unwrap();
    let login = "    username = \"migrator\"\n    password = { env = \"THE_PASSWORD\" }\n";
    let module = format!(
        "{}resource \"cutover_migration\" \"orders\" {{\n  name = \"orders\"\n  wait_for = \
         \"ready\"\n{}}}\n",
        provider(&scene.daemon.endpoint()),
        scene.sides(login)
    );
    scene.terraform.write("main.tf", &module).unwrap();
    scene.terraform.set("TF_LOG", "trace");
    let planned = scene.terraform.run(["plan", "-out=saved.tfplan"]).await.unwrap();
    ends(&planned, 0);
    let applied = scene.terraform.run(["apply", "saved.tfplan"]).await.unwrap();
    ends(&applied, 0);
    // The progress is in the log, in Terraform's own form.
    says(&applied, "the daemon has taken the change");
    scene.terraform.set("TF_LOG", "");
    let shown = scene.terraform.succeed(["show", "-json", "saved.tfplan"]).await.unwrap();
    let state =
        std::fs::read_to_string(scene.terraform.folder().join("terraform.tfstate")).unwrap();
    assert!(
        state.contains("THE_PASSWORD") && shown.stdout.contains("THE_PASSWORD"),
        "the reference is there"
    );
    for text in
        [planned.to_string(), applied.to_string(), shown.to_string(), state, scene.daemon.log()]
    {
        assert!(!text.contains(PASSWORD), "the password is in what was written");
    }
}

#[tokio::test]
async fn a_write_only_password_goes_to_the_daemon_and_nowhere_else() {
    let mut scene = Scene::with_users().await.unwrap();
    let module = |login: &str| {
        let login = format!("    username = \"migrator\"\n{login}");
        format!(
            "{}variable \"password\" {{\n  type = string\n  ephemeral = true\n}}\nresource \
             \"cutover_migration\" \"orders\" {{\n  name = \
             \"orders\"\n  wait_for = \"ready\"\n{}}}\n",
            provider(&scene.daemon.endpoint()),
            scene.sides(&login)
        )
    };
    let given = |version: u32| {
        module(&format!("    password_wo = var.password\n    password_wo_version = {version}\n"))
    };
    let (without, first, second) = (module("    password_wo = var.password\n"), given(1), given(2));

    scene.terraform.write("main.tf", &without).unwrap();
    let output = scene.terraform.run(["validate"]).await.unwrap();
    ends(&output, 1);
    says(&output, "password_wo needs password_wo_version");

    // The live checks try it out before anything is kept.
    scene.terraform.write("main.tf", &first).unwrap();
    scene.terraform.set("TF_VAR_password", "another-one");
    let planned = scene.terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "[CUT0014]");
    let secrets = scene.daemon.state_folder().join("secrets");
    assert_eq!(
        std::fs::read_dir(&secrets).unwrap().count(),
        0,
        "what was tried out is left behind"
    );

    scene.terraform.set("TF_VAR_password", PASSWORD);
    scene.terraform.set("TF_LOG", "trace");
    let applied = scene.terraform.apply().await.unwrap();
    ends(&applied, 0);
    scene.terraform.set("TF_LOG", "");
    ends(&scene.terraform.plan().await.unwrap(), 0);
    let attributes = scene.terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(
        (&attributes["phase"], &attributes["source"]["password_wo"]),
        (&json!("ready"), &json!(null)),
        "{attributes:#}"
    );
    let kept =
        |version: u32| secrets.join(WORKSPACE).join("orders").join(format!("source-{version}"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(kept(1)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // A new version changes the run in place.
    scene.terraform.write("main.tf", &second).unwrap();
    let planned = scene.terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "Plan: 0 to add, 1 to change, 0 to destroy.");
    ends(&scene.terraform.apply().await.unwrap(), 0);
    ends(&scene.terraform.plan().await.unwrap(), 0);
    assert!(kept(2).exists());

    // What nobody refers to is thrown away by the daemon's next start.
    scene.daemon.terminate().await.unwrap();
    scene.daemon.restart().await.unwrap();
    // Its socket is there a moment before; it answers when that is done.
    ends(&scene.terraform.plan().await.unwrap(), 0);
    assert!(kept(2).exists() && !kept(1).exists());
    let state =
        std::fs::read_to_string(scene.terraform.folder().join("terraform.tfstate")).unwrap();
    for text in [applied.to_string(), planned.to_string(), state, scene.daemon.log()] {
        assert!(!text.contains(PASSWORD), "the password is in what was written");
    }
}
