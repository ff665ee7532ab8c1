//! What went wrong, in the form that Terraform prints with the line of the configuration.

use schemas::fault::Fault;
use schemas::hcl::{self, Severity};
use schemas::plugin_protocol::tfplugin6::attribute_path::{Step, step::Selector};
use schemas::plugin_protocol::tfplugin6::{AttributePath, Diagnostic, diagnostic};

/// What keeps a call from its answer.
pub(crate) type Problems = Vec<Diagnostic>;

/// An error, with its code and remedy.
#[must_use]
pub(crate) fn fault(fault: &Fault) -> Diagnostic {
    error(format!("{} [{}]", fault.message, fault.code), sentence(&fault.remedy))
}

/// A fragment as a sentence: remedies are fragments, and what they stand beside here is not.
pub(crate) fn sentence(fragment: &str) -> String {
    let mut chars = fragment.chars();
    let Some(first) = chars.next() else { return String::new() };
    let end = if fragment.ends_with(['.', '?', '!', ':']) { "" } else { "." };
    format!("{}{}{end}", first.to_uppercase(), chars.as_str())
}

/// An error.
#[must_use]
pub(crate) fn error(summary: impl Into<String>, detail: impl Into<String>) -> Diagnostic {
    Diagnostic {
        severity: diagnostic::Severity::Error.into(),
        summary: summary.into(),
        detail: detail.into(),
        attribute: None,
    }
}

/// A warning.
#[must_use]
pub(crate) fn warning(summary: impl Into<String>, detail: impl Into<String>) -> Diagnostic {
    Diagnostic { severity: diagnostic::Severity::Warning.into(), ..error(summary, detail) }
}

/// What the checks or the planner say, at the attribute that it is about.
#[must_use]
pub(crate) fn checked(one: &hcl::Diagnostic) -> Diagnostic {
    let path = one.place.as_ref().and_then(hcl::Place::value_path).filter(|path| !path.is_empty());
    let severity = match one.severity {
        Severity::Error => diagnostic::Severity::Error,
        Severity::Warning => diagnostic::Severity::Warning,
    };
    let mut detail = sentence(&one.detail);
    for related in one
        .related
        .iter()
        .filter_map(|related| Some((&related.message, related.place.value_path()?)))
    {
        detail = format!("{detail}\nSee also {}, {}.", related.1, related.0);
    }
    Diagnostic {
        severity: severity.into(),
        summary: format!("{} [{}]", one.summary, one.code),
        detail,
        attribute: path.map(attribute_path),
    }
}

/// Whether one of them is an error.
#[must_use]
pub(crate) fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|one| one.severity() == diagnostic::Severity::Error)
}

/// A path such as `source.tls.ca_file`, `namespaces.include[1]` or `source.password["env"]`, step
/// by step.
#[must_use]
pub(crate) fn attribute_path(path: &str) -> AttributePath {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let selector;
        if let Some(inside) = rest.strip_prefix("[\"") {
            let (key, after) = inside.split_once("\"]").unwrap_or((inside, ""));
            selector = Selector::ElementKeyString(key.replace("\\\"", "\""));
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']').unwrap_or((inside, ""));
            // An index that is no number would be a mistake of ours: the path then ends before it.
            let Ok(index) = index.parse() else { break };
            selector = Selector::ElementKeyInt(index);
            rest = after;
        } else {
            let rest_of_it = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest_of_it.find(['.', '[']).unwrap_or(rest_of_it.len());
            selector = Selector::AttributeName(rest_of_it[..end].to_owned());
            rest = &rest_of_it[end..];
        }
        steps.push(Step { selector: Some(selector) });
    }
    AttributePath { steps }
}

#[cfg(test)]
mod tests {
    use schemas::plugin_protocol::tfplugin6::attribute_path::step::Selector;

    use super::attribute_path;

    #[test]
    fn paths_are_taken_apart() {
        let steps = |path: &str| {
            attribute_path(path)
                .steps
                .into_iter()
                .filter_map(|step| step.selector)
                .collect::<Vec<_>>()
        };
        let name = |name: &str| Selector::AttributeName(name.to_owned());
        assert_eq!(steps(""), []);
        assert_eq!(steps("name"), [name("name")]);
        assert_eq!(
            steps("sharding.collection[2].key[0]"),
            [
                name("sharding"),
                name("collection"),
                Selector::ElementKeyInt(2),
                name("key"),
                Selector::ElementKeyInt(0)
            ]
        );
        assert_eq!(
            steps("source.password[\"e.v[n\"]"),
            [name("source"), name("password"), Selector::ElementKeyString("e.v[n".to_owned())]
        );
    }
}
