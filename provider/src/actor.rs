//! Who acts, as the journal keeps it: what the environment says of the person and the revision.

use schemas::wire::v1;

const NAMES: [&str; 4] = ["CUTOVER_ACTOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER"];
const REVISIONS: [&str; 3] = ["CUTOVER_REVISION", "GITHUB_SHA", "CI_COMMIT_SHA"];

/// The actor of this process. The daemon adds the user id, which alone is proved.
#[must_use]
pub fn from_environment() -> v1::Actor {
    from_variables(|name| std::env::var(name).ok())
}

fn from_variables(variable: impl Fn(&str) -> Option<String>) -> v1::Actor {
    let first = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
            .unwrap_or_default()
    };
    v1::Actor { name: first(&NAMES), revision: first(&REVISIONS) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_variable_that_says_something_counts() {
        let actor = super::from_variables(|name| match name {
            "CUTOVER_ACTOR" => Some(" ".to_owned()),
            "GITHUB_ACTOR" => Some("ada".to_owned()),
            "USER" => Some("runner".to_owned()),
            "CI_COMMIT_SHA" => Some("4f2c".to_owned()),
            _ => None,
        });
        assert_eq!((actor.name.as_str(), actor.revision.as_str()), ("ada", "4f2c"));
    }
}
