//! Whole declarations against golden files: each mistake's text, and what good files come to.
//!
//! `UPDATE_GOLDEN=1 cargo test -p schemas --test it declarations` writes the expected files anew;
//! the diff is then for review.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use schemas::hcl::{Declaration, Diagnostics, File, Inputs, layout, load, load_texts};
use schemas::spec::MigrationSpec;

/// The entries of a folder under `tests/`, in order, by their ending (`""`: folders).
fn cases(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            if ending.is_empty() {
                path.is_dir()
            } else {
                path.extension().is_some_and(|e| e == ending)
            }
        })
        .collect();
    cases.sort();
    cases
}

/// What a case is given: lines `# var: k=v`, `# env: K=v` and `# var-file: F` at its top.
fn inputs(text: &str) -> Inputs {
    let mut inputs = Inputs::default();
    for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
        let Some((what, rest)) = line.split_once(": ") else { continue };
        let pair =
            || rest.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).expect("name=value");
        match what {
            "var" => inputs.vars.push(pair()),
            "env" => drop(inputs.env.insert(pair().0, pair().1)),
            "var-file" => inputs.var_files.push(rest.into()),
            _ => {}
        }
    }
    inputs
}

fn load_file(path: &Path) -> Result<Declaration, Diagnostics> {
    let text = fs::read_to_string(path).expect("a case");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let inputs = inputs(&text);
    load_texts(path.parent().expect("a folder"), vec![File { name, text }], &inputs)
}

fn load_folder(path: &Path) -> Result<Declaration, Diagnostics> {
    let main = fs::read_to_string(path.join("main.hcl")).unwrap_or_default();
    load(path, &inputs(&main))
}

/// Compares with the golden file, or writes it; gives a message where they differ.
fn compare(golden: &Path, actual: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, actual).expect("the golden file can be written");
        return None;
    }
    let expected = fs::read_to_string(golden).unwrap_or_default();
    (expected != actual).then(|| {
        format!("{} differs.\n--- expected\n{expected}\n--- actual\n{actual}", golden.display())
    })
}

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{}\nUPDATE_GOLDEN=1 writes the files anew.", failures.join("\n"));
}

#[test]
fn every_mistake_has_its_diagnostic() {
    let files = cases("tests/bad", "hcl").into_iter().map(|path| (load_file(&path), path));
    let folders = cases("tests/bad", "").into_iter().map(|path| (load_folder(&path), path));
    let mut failures = Vec::new();
    let mut count = 0;
    for (result, path) in files.chain(folders) {
        count += 1;
        match result {
            Ok(_) => failures.push(format!("{} was accepted", path.display())),
            Err(diagnostics) => {
                let text = diagnostics.render(false);
                assert!(
                    !text.contains("hunter2"),
                    "a secret got into the diagnostics of {}:\n{text}",
                    path.display()
                );
                let json = serde_json::to_string(&diagnostics).expect("JSON");
                assert!(
                    !json.contains("hunter2"),
                    "a secret got into the JSON of {}:\n{json}",
                    path.display()
                );
                failures.extend(compare(&path.with_extension("txt"), &without_paths(&text)));
            }
        }
    }
    assert!(count >= 60, "only {count} cases were found");
    report(failures);
}

/// What a declaration comes to, with the folder of the cases left out of its paths.
fn shown(declaration: &Declaration) -> String {
    let specs: BTreeMap<_, &MigrationSpec> = declaration
        .migrations
        .iter()
        .map(|(name, declared)| (name.as_str(), &declared.spec))
        .collect();
    let sensitive: BTreeMap<_, _> = declaration
        .migrations
        .iter()
        .map(|(name, declared)| (name.as_str(), &declared.sensitive))
        .collect();
    let json = serde_json::json!({
        "endpoint": declaration.daemon.endpoint,
        "workspace": declaration.daemon.workspace,
        "migrations": specs,
        "sensitive": sensitive,
        "warnings": declaration.warnings.render(false).lines().collect::<Vec<_>>(),
    });
    without_paths(&serde_json::to_string_pretty(&json).expect("JSON")) + "\n"
}

/// The folder of the clone differs from machine to machine.
fn without_paths(text: &str) -> String {
    let here = std::env::current_dir().expect("the crate's folder");
    text.replace(&*here.to_string_lossy(), "HERE")
        .replace(&*here.parent().expect("the root").to_string_lossy(), "ROOT")
}

#[test]
fn good_files_come_to_what_they_say() {
    let files = cases("tests/good", "hcl").into_iter().map(|path| (load_file(&path), path));
    let folders = cases("tests/good", "").into_iter().map(|path| (load_folder(&path), path));
    let mut failures = Vec::new();
    for (result, path) in files.chain(folders) {
        match result {
            Ok(declaration) => {
                failures.extend(compare(&path.with_extension("json"), &shown(&declaration)))
            }
            Err(diagnostics) => {
                failures.push(format!("{} was refused:\n{diagnostics}", path.display()))
            }
        }
    }
    report(failures);
}

#[test]
fn the_examples_are_laid_out() {
    for path in cases("../examples", "") {
        for file in cases(&path.to_string_lossy(), "hcl")
            .into_iter()
            .chain(cases(&path.to_string_lossy(), "hclvars"))
        {
            let text = fs::read_to_string(&file).expect("an example");
            let laid_out = layout(&file.to_string_lossy(), &text)
                .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
            assert_eq!(laid_out, text, "{}: run cutover fmt", file.display());
        }
    }
}

#[test]
fn the_examples_load() {
    let mut count = 0;
    let mut failures = Vec::new();
    for path in cases("../examples", "") {
        if path.join("main.hcl").exists() {
            count += 1;
            let golden = Path::new("tests/examples")
                .join(path.file_name().expect("a name"))
                .with_extension("json");
            match load_folder(&path) {
                Ok(declaration) => {
                    assert!(
                        !declaration.migrations.is_empty(),
                        "{} declares nothing",
                        path.display()
                    );
                    // Those without a golden file belong to others, and only have to load.
                    if golden.exists() {
                        failures.extend(compare(
                            &golden,
                            &shown(&declaration).replace("HERE/../", "ROOT/"),
                        ));
                    }
                }
                Err(diagnostics) => {
                    failures.push(format!("{} was refused:\n{diagnostics}", path.display()))
                }
            }
        }
    }
    assert!(count >= 3, "only {count} examples were found");
    report(failures);
}
