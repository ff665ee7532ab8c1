//! The functions that expressions can call. All are pure: the same files give the same declaration,
//! now and in a month.

use super::eval::Evaluator;
use super::source::quoted;
use super::suggest::did_you_mean;
use super::value::Value;

mod collection;
mod convert;
mod file;
mod format;
mod number;
mod text;

pub(crate) use convert::set;

/// A function and how it is called.
pub(crate) struct Function {
    name: &'static str,
    /// How it is called, as in `join(separator, list)`.
    pub(crate) signature: &'static str,
    least: usize,
    most: Option<usize>,
    run: fn(&Call<'_>) -> Answer,
}

/// Why a call gives no value: the argument that is to blame, from 0, and the reason.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) argument: Option<usize>,
    pub(crate) message: String,
}

/// What a function gives.
type Answer = Result<Value, Problem>;

/// A problem with the call as a whole.
fn problem<T>(message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { argument: None, message: message.into() })
}

/// A problem with one argument.
fn problem_with<T>(argument: usize, message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { argument: Some(argument), message: message.into() })
}

/// Makes the entry of a function from its signature.
const fn function(
    name: &'static str,
    signature: &'static str,
    least: usize,
    most: Option<usize>,
    run: fn(&Call<'_>) -> Answer,
) -> Function {
    Function { name, signature, least, most, run }
}

const TABLES: [&[Function]; 5] = [
    text::FUNCTIONS,
    collection::FUNCTIONS,
    convert::FUNCTIONS,
    number::FUNCTIONS,
    file::FUNCTIONS,
];

/// Functions that people know from Terraform and that are left out on purpose.
const IMPURE: [&str; 5] = ["timestamp", "plantimestamp", "uuid", "bcrypt", "timeadd"];

/// Every function.
pub(crate) fn all() -> impl Iterator<Item = &'static Function> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The function of this name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
}

impl Function {
    /// Its name.
    #[cfg(test)]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// What to say about a name that is no function.
pub(crate) fn unknown_detail(name: &str) -> String {
    if IMPURE.contains(&name) {
        return "A declaration must be the same each time it is read, so that there is no such \
             function here."
            .to_owned();
    }
    let names = all().map(|function| function.name).chain(["try", "can"]);
    format!("There is no function of this name.{}", did_you_mean(name, names))
}

/// Calls a function.
pub(crate) fn call(
    function: &Function,
    evaluator: &Evaluator<'_>,
    arguments: Vec<Value>,
) -> Answer {
    let count = arguments.len();
    if count < function.least || function.most.is_some_and(|most| count > most) {
        let wanted = match function.most {
            Some(most) if most == function.least => most.to_string(),
            Some(most) => format!("{} to {most}", function.least),
            None => format!("at least {}", function.least),
        };
        let plural = if wanted == "1" { "" } else { "s" };
        return problem(format!("It takes {wanted} argument{plural}; here are {count}."));
    }
    (function.run)(&Call { arguments, evaluator })
}

/// A call's arguments, and where it happens.
struct Call<'a> {
    arguments: Vec<Value>,
    evaluator: &'a Evaluator<'a>,
}

impl Call<'_> {
    fn len(&self) -> usize {
        self.arguments.len()
    }

    fn value(&self, index: usize) -> &Value {
        &self.arguments[index]
    }

    fn expected<T>(&self, index: usize, what: &str) -> Result<T, Problem> {
        problem_with(index, format!("Expected {what}, got {}.", self.value(index).kind()))
    }

    fn text(&self, index: usize) -> Result<String, Problem> {
        self.value(index).to_text().map_or_else(|| self.expected(index, "a string"), Ok)
    }

    fn number(&self, index: usize) -> Result<hcl_edit::Number, Problem> {
        self.value(index).to_number().map_or_else(|| self.expected(index, "a number"), Ok)
    }

    fn float(&self, index: usize) -> Result<f64, Problem> {
        Ok(self.number(index)?.as_f64().unwrap_or(0.0))
    }

    fn whole(&self, index: usize) -> Result<i64, Problem> {
        match self.number(index)?.as_i64() {
            Some(whole) => Ok(whole),
            None => self.expected(index, "a whole number"),
        }
    }

    fn count(&self, index: usize) -> Result<usize, Problem> {
        match usize::try_from(self.whole(index)?) {
            Ok(count) => Ok(count),
            Err(_) => problem_with(index, "Expected a whole number that is not negative."),
        }
    }

    fn list(&self, index: usize) -> Result<&[Value], Problem> {
        match self.value(index) {
            Value::List(items) => Ok(items),
            _ => self.expected(index, "a list"),
        }
    }

    fn texts(&self, index: usize) -> Result<Vec<String>, Problem> {
        let texts = self.list(index)?.iter().map(|item| match item.to_text() {
            Some(text) => Ok(text),
            None => {
                problem_with(index, format!("Expected a list of strings; it has {}.", item.kind()))
            }
        });
        texts.collect()
    }

    fn map(&self, index: usize) -> Result<&std::collections::BTreeMap<String, Value>, Problem> {
        match self.value(index) {
            Value::Map(entries) => Ok(entries),
            _ => self.expected(index, "an object"),
        }
    }

    /// Refuses to make a text or list that the budget has no room for, before it is made.
    fn room_for(&self, bytes: usize) -> Result<(), Problem> {
        if bytes > self.evaluator.budget() {
            problem("The result would be too large.")
        } else {
            Ok(())
        }
    }

    /// A value as a message may quote it.
    fn quoted(&self, index: usize) -> String {
        match self.value(index).to_text() {
            Some(text) => quoted(&text),
            None => self.value(index).kind().to_owned(),
        }
    }
}
