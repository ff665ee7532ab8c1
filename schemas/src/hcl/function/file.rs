//! Functions that read files. Relative names start at the folder of the HCL files.

use std::path::{Path, PathBuf};

use hcl_edit::parser::parse_template;

use super::super::eval::{Bound, Failure};
use super::super::source::{Unreadable, quoted, read_text};
use super::super::value::Value;
use super::{Answer, Call, Function, Problem, function, problem_with};

pub(super) const FUNCTIONS: &[Function] = &[
    function("abspath", "abspath(path)", 1, Some(1), |call| {
        Ok(resolved(call)?.to_string_lossy().into_owned().into())
    }),
    function("basename", "basename(path)", 1, Some(1), |call| {
        let path = call.text(0)?;
        Ok(Path::new(&path)
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
            .into())
    }),
    function("dirname", "dirname(path)", 1, Some(1), |call| {
        let path = call.text(0)?;
        let parent = Path::new(&path)
            .parent()
            .map_or_else(String::new, |parent| parent.to_string_lossy().into_owned());
        Ok(if parent.is_empty() { ".".into() } else { parent.into() })
    }),
    function("file", "file(path)", 1, Some(1), |call| read(call).map(Value::String)),
    function("fileexists", "fileexists(path)", 1, Some(1), |call| {
        Ok(resolved(call)?.is_file().into())
    }),
    function("templatefile", "templatefile(path, values)", 2, Some(2), template_file),
];

fn resolved(call: &Call<'_>) -> Result<PathBuf, Problem> {
    Ok(call.evaluator.names.dir.join(call.text(0)?))
}

fn read(call: &Call<'_>) -> Result<String, Problem> {
    let path = resolved(call)?;
    read_text(&path).or_else(|Unreadable(what, detail)| {
        problem_with(0, format!("{} {what}. {detail}", quoted(&path.to_string_lossy())))
    })
}

fn template_file(call: &Call<'_>) -> Answer {
    if call.evaluator.is_template_file() {
        return super::problem("A template file cannot use another one.");
    }
    let text = read(call)?;
    let template = parse_template(&text).or_else(|error| {
        let place = error.location();
        problem_with(
            0,
            format!(
                "{}, line {}, column {}: {}.",
                call.quoted(0),
                place.line(),
                place.column(),
                error.message()
            ),
        )
    })?;
    let evaluator = call.evaluator.closed(&text);
    let result = evaluator.template_file(&template, Some(&Bound::all(call.map(1)?)));
    if evaluator.is_sensitive() {
        call.evaluator.set_sensitive(true);
    }
    result.map_err(|failure| match failure {
        Failure::At(wrong) => {
            let line = text.get(..wrong.span.start).unwrap_or_default().matches('\n').count() + 1;
            Problem {
                argument: Some(0),
                message: format!(
                    "{}, line {line}: {}. {}",
                    call.quoted(0),
                    wrong.summary,
                    wrong.detail
                ),
            }
        }
        Failure::Reported => Problem {
            argument: None,
            message: "A value that it uses is wrong elsewhere.".to_owned(),
        },
    })
}
