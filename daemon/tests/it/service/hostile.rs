//! Texts, saved plans and messages of any content: refused or taken, without a panic and in time.
//!
//! A fixed number of inputs by default;
//! `CUTOVER_FUZZ_SECONDS=200 cargo test --release -p daemon --test it hostile` tries new ones for
//! that long, each kind.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use prost::Message as _;
use provider::output::pretty;
use provider::render::paint::Paint;
use provider::render::{markdown, plan_text};
use provider::saved_plan::{Origin, SavedPlan};
use schemas::fault::FaultCode;
use schemas::hcl::{File, Inputs, layout, load_texts};
use schemas::time::UtcTime;
use schemas::wire::v1;
use schemas::wire::{FORMAT_VERSION, to_json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::bench::{Bench, spec};
use super::mutate::{Numbers, in_time, mutated, mutated_json, rounds};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The HCL of the examples and of the loader's own tests.
fn texts() -> Vec<Vec<u8>> {
    let mut folders = vec![
        root().join("schemas/tests/good"),
        root().join("schemas/tests/bad"),
        root().join("schemas/tests/layout"),
    ];
    folders.extend(
        fs::read_dir(root().join("examples"))
            .expect("examples")
            .map(|entry| entry.expect("an entry").path()),
    );
    let mut files: Vec<PathBuf> = folders
        .iter()
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| {
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
        })
        .filter(|path| {
            path.is_file()
                && path.extension().is_some_and(|ending| ending == "hcl" || ending == "in")
        })
        .collect();
    files.sort();
    assert!(files.len() > 100, "only {} seeds", files.len());
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

#[test]
fn hostile_hcl_is_refused_or_taken() {
    let seeds = texts();
    for round in rounds(1_500) {
        let mut numbers = Numbers(round);
        let (seed, other) =
            (&seeds[numbers.below(seeds.len())], &seeds[numbers.below(seeds.len())]);
        let bytes = mutated(seed, other, &mut numbers);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let start = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let file = File { name: "main.hcl".to_owned(), text: text.clone() };
            match load_texts(&root().join("schemas/tests/good"), vec![file], &Inputs::default()) {
                Ok(declaration) => drop(declaration.warnings.render(true)),
                Err(diagnostics) => {
                    assert!(diagnostics.has_errors() && !diagnostics.render(true).is_empty())
                }
            }
            match layout("main.hcl", &text) {
                Ok(laid_out) => assert_eq!(
                    layout("main.hcl", &laid_out).as_ref(),
                    Ok(&laid_out),
                    "laid out twice"
                ),
                Err(all) => {
                    let is_misread = all
                        .iter()
                        .any(|one| one.summary.contains("without changing what it means"));
                    // Where a quote may stand inside of a string's own expression; the file is then
                    // left as it is.
                    assert!(!is_misread || text.contains("%{") || text.contains("${"), "{all}");
                }
            }
        }));
        assert!(tried.is_ok(), "input {round}: {text:?}");
        in_time(start, round, &bytes);
    }
}

#[test]
fn hostile_saved_plans_are_refused_or_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let declared =
        provider::load::directory(&root().join("examples/many"), &provider::load::NO_VARIABLES)
            .expect("it loads");
    let file = folder.path().join("plan");
    let now: UtcTime = "2026-03-01T10:00:00Z".parse().expect("a time");
    let origin = Origin {
        directory: root().join("examples/many"),
        endpoint: "unix:///run/cutover/cutoverd.sock".to_owned(),
        inputs: declared.inputs,
        now,
    };
    SavedPlan::new(declared.declaration, Vec::new(), BTreeMap::new(), origin)
        .write(&file)
        .expect("the seed");
    let seed = fs::read(&file).expect("the seed");
    let document: serde_json::Value = serde_json::from_slice(&seed).expect("a saved plan is JSON");
    let mut read = 0;
    for round in rounds(1_500) {
        let mut numbers = Numbers(round);
        let bytes = match numbers.below(3) {
            0 => mutated(&seed, &seed, &mut numbers),
            _ => signed(&mutated_json(&document, &mut numbers)),
        };
        fs::write(&file, &bytes).expect("writes");
        let start = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| match SavedPlan::read(&file) {
            Ok(saved) => {
                // What it answers does not matter here.
                let _ = (
                    saved.check_inputs(),
                    saved.check_observed(&[]),
                    saved.check_inspections(&BTreeMap::new()),
                );
                let (plan, folded) = (saved.plan(), saved.folded());
                drop((
                    plan_text::plan(plan, &folded, Paint::new(true)),
                    markdown::plan(plan, &folded),
                    pretty(plan),
                ));
                drop((saved.specs(), saved.drops()));
                true
            }
            Err(fault) => {
                assert!(!fault.message.is_empty());
                false
            }
        }));
        let Ok(was_read) = tried else {
            panic!("input {round}: {:?}", String::from_utf8_lossy(&bytes))
        };
        read += u32::from(was_read);
        in_time(start, round, &bytes);
    }
    assert!(read > 0, "nothing got past the reader: the plans' own texts were never tried");
}

/// A document in a saved plan's form, with the digest that fits it.
fn signed(document: &serde_json::Value) -> Vec<u8> {
    let mut document = document.clone();
    if let Some(members) = document.as_object_mut() {
        members.remove("sha256");
    }
    let text = pretty(&document);
    let bound = text.strip_suffix("\n}\n").unwrap_or(&text);
    format!("{bound},\n  \"sha256\": \"{}\"\n}}\n", schemas::spec::sha256_hex(bound.as_bytes()))
        .into_bytes()
}

/// Sends and takes messages as the bytes they are.
#[derive(Clone, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        use bytes::Buf as _;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Remembers that some thread has panicked: a server's panic is only a broken call to its caller.
fn watch_for_panics() -> &'static AtomicBool {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.store(true, Ordering::SeqCst);
            before(info);
        }));
    });
    &PANICKED
}

/// Each call with a message that means something.
fn calls() -> Vec<(&'static str, Vec<u8>)> {
    let (workspace, name) = (String::new(), "orders".to_owned());
    let declared = to_json(&spec("orders"));
    let secret = v1::Secret { side: "source".to_owned(), version: 1, secret: "x".to_owned() };
    let change = v1::Change {
        name: name.clone(),
        expected_serial: 1,
        spec: declared.clone(),
        drops: vec!["shop.old".to_owned()],
    };
    let apply = v1::ApplyRequest {
        format_version: FORMAT_VERSION,
        workspace: "payments".to_owned(),
        changes: vec![change],
        actor: Some(v1::Actor { name: "ada".to_owned(), revision: "4f2c".to_owned() }),
    };
    let act = v1::ActRequest {
        workspace: workspace.clone(),
        name: name.clone(),
        actor: None,
        act: Some(v1::act_request::Act::Extend(v1::Extend { extensions: 1 })),
    };
    let inspect = v1::InspectRequest {
        format_version: FORMAT_VERSION,
        workspace: "payments".to_owned(),
        spec: declared,
        secrets: vec![secret.clone()],
    };
    let keep = v1::KeepSecretsRequest {
        workspace: "payments".to_owned(),
        name: name.clone(),
        secrets: vec![secret],
    };
    vec![
        ("Apply", apply.encode_to_vec()),
        ("Act", act.encode_to_vec()),
        ("Inspect", inspect.encode_to_vec()),
        ("KeepSecrets", keep.encode_to_vec()),
        (
            "Observe",
            v1::ObserveRequest { workspace: workspace.clone(), name: name.clone() }.encode_to_vec(),
        ),
        ("Mismatches", v1::MismatchesRequest { workspace, name }.encode_to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_are_refused_or_answered() {
    let panicked = watch_for_panics();
    let bench = Bench::started().await;
    let spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    let (calls, document) = (calls(), serde_json::to_value(&spec).expect("JSON"));
    let path = bench.config().listen.path;
    let channel = tonic::transport::Endpoint::try_from(format!("unix://{}", path.display()))
        .expect("an address");
    let mut client = tonic::client::Grpc::new(channel.connect().await.expect("it listens"));
    for round in rounds(400) {
        let mut numbers = Numbers(round);
        let mut call = &calls[numbers.below(calls.len())];
        let mut bytes = Vec::new();
        if numbers.below(3) == 0 {
            // A message that is whole, with a declaration that is not.
            call = &calls[0];
            let mut apply = v1::ApplyRequest::decode(call.1.as_slice()).expect("a seed");
            apply.changes[0].spec = mutated_json(&document, &mut numbers).to_string();
            apply.changes[0].expected_serial = numbers.below(3) as u64;
            apply.encode(&mut bytes).expect("it fits");
        } else {
            bytes = mutated(&call.1, &calls[0].1, &mut numbers);
        }
        let start = Instant::now();
        client.ready().await.expect("the daemon takes calls");
        let path = format!("/cutover.v1.Cutover/{}", call.0).parse().expect("a path");
        // It may be taken: some inputs are whole.
        let answer = client.unary(tonic::Request::new(bytes.clone()), path, Bytes).await;
        assert!(!panicked.load(Ordering::SeqCst), "input {round} to {}: {bytes:?}", call.0);
        if let Err(status) = &answer {
            let own = serde_json::from_slice::<schemas::fault::Fault>(status.details()).ok();
            assert!(
                own.is_none_or(|fault| fault.code != FaultCode::Internal),
                "input {round} to {}: {status:?}",
                call.0
            );
        }
        in_time(start, round, &bytes);
    }
    bench.find("orders").await.expect("the daemon is well, and the migration as it was or changed");
}
