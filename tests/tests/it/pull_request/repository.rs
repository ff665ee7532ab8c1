//! A repository with its author's clone and the pipeline's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::Declaration;

/// A bare repository, somebody's clone of it, and the pipeline's.
pub(crate) struct Repository {
    pub(crate) author: PathBuf,
    pub(crate) pipeline: PathBuf,
    pub(crate) origin: PathBuf,
}

pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=ada",
            "-c",
            "user.email=ada@example.net",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Repository {
    pub(crate) fn new(folder: &Path) -> Self {
        git(folder, &["init", "--quiet", "--bare", "--initial-branch=main", "origin.git"]);
        git(folder, &["clone", "--quiet", "origin.git", "author"]);
        let author = folder.join("author");
        git(&author, &["switch", "--quiet", "--create", "main"]);
        fs::create_dir(author.join("migrations")).unwrap();
        fs::write(author.join("migrations/.gitkeep"), "").unwrap();
        let repository =
            Self { author, pipeline: folder.join("pipeline"), origin: folder.join("origin.git") };
        repository.commit("Begin");
        git(&repository.author, &["push", "--quiet", "origin", "main"]);
        git(folder, &["clone", "--quiet", "origin.git", "pipeline"]);
        repository
    }

    pub(crate) fn commit(&self, message: &str) {
        git(&self.author, &["add", "--all"]);
        git(&self.author, &["commit", "--quiet", "--message", message]);
    }

    /// Proposes what is declared on a branch of its own.
    pub(crate) fn propose(&self, branch: &str, declaration: &Declaration) {
        git(&self.author, &["switch", "--quiet", "--create", branch, "main"]);
        declaration.write(&self.author.join("migrations")).unwrap();
        self.commit(branch);
        git(&self.author, &["push", "--quiet", "origin", branch]);
    }

    /// Merges a branch that the pipeline has pushed, as somebody does in the browser.
    pub(crate) fn merge_pushed(&self, branch: &str) -> String {
        git(&self.author, &["fetch", "--quiet", "origin"]);
        self.merge(&format!("origin/{branch}"))
    }

    /// Merges a branch, and gives the merge's revision.
    pub(crate) fn merge(&self, branch: &str) -> String {
        git(&self.author, &["switch", "--quiet", "main"]);
        git(&self.author, &["merge", "--quiet", "--no-ff", "--no-edit", branch]);
        git(&self.author, &["push", "--quiet", "origin", "main"]);
        git(&self.author, &["rev-parse", "HEAD"])
    }

    /// What the pipeline does first: checks a branch out.
    pub(crate) fn check_out(&self, branch: &str) {
        git(&self.pipeline, &["fetch", "--quiet", "origin"]);
        git(&self.pipeline, &["checkout", "--quiet", "--detach", &format!("origin/{branch}")]);
    }
}
