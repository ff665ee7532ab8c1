//! Evaluates expressions, with the place of whatever is wrong in them.
//!
//! The parser's own companion evaluates too, but gives no places for its errors, evaluates the
//! arguments of `try`, and cannot tell where a sensitive value went; so the tree is walked here.
//! Work and memory are bounded by a budget: a few lines of locals could ask for terabytes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use hcl_edit::Span;
use hcl_edit::expr::{Expression, ForExpr, FuncCall, Object, ObjectKey};

use super::function;
use super::operation;
use super::source::quoted;
use super::value::Value;

mod reference;

/// What all evaluations of one declaration may make together, in bytes.
const BUDGET: usize = 64 << 20;

/// How many levels of lists and objects a value may have.
pub(crate) const DEEPEST: usize = 100;

/// A variable or local.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It has this value.
    Value {
        /// The value.
        value: Value,
        /// Whether it must not be shown.
        sensitive: bool,
    },
    /// It has none, for a reason that is already reported.
    Broken,
}

/// What expressions can refer to.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) variables: BTreeMap<String, Known>,
    pub(crate) locals: BTreeMap<String, Known>,
    /// Where relative file names start, absolute.
    pub(crate) dir: PathBuf,
    /// Whether every file was read: if not, an unknown name may be declared in one that was not.
    pub(crate) complete: bool,
    budget: Cell<usize>,
}

impl Names {
    pub(crate) fn new(dir: PathBuf, complete: bool) -> Self {
        Self {
            variables: BTreeMap::new(),
            locals: BTreeMap::new(),
            dir,
            complete,
            budget: Cell::new(BUDGET),
        }
    }
}

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Failure {
    /// For this reason.
    At(Box<Wrong>),
    /// For one that is already reported elsewhere.
    Reported,
}

/// What is wrong with an expression.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// Where, in the expression's file.
    pub(crate) span: Range<usize>,
    pub(crate) summary: String,
    pub(crate) detail: String,
}

/// The result of an evaluation.
pub(crate) type Outcome = Result<Value, Failure>;

/// Makes a failure.
pub(crate) fn wrong<T>(
    span: Range<usize>,
    summary: impl Into<String>,
    detail: impl Into<String>,
) -> Result<T, Failure> {
    Err(Failure::At(Box::new(Wrong { span, summary: summary.into(), detail: detail.into() })))
}

/// The span of a part of a parsed file.
pub(crate) fn span_of(part: &impl Span) -> Range<usize> {
    part.span().unwrap_or(0..0)
}

/// Names that a `for` or a template file has bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound<'a> {
    what: Binding<'a>,
    outer: Option<&'a Bound<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum Binding<'a> {
    One(&'a str, &'a Value),
    All(&'a BTreeMap<String, Value>),
}

impl<'a> Bound<'a> {
    /// One name within others.
    pub(crate) fn one(name: &'a str, value: &'a Value, outer: Option<&'a Bound<'a>>) -> Self {
        Self { what: Binding::One(name, value), outer }
    }

    /// An object's keys.
    pub(crate) fn all(entries: &'a BTreeMap<String, Value>) -> Self {
        Self { what: Binding::All(entries), outer: None }
    }

    fn find(&self, name: &str) -> Option<&'a Value> {
        match self.what {
            Binding::One(own, value) if own == name => Some(value),
            Binding::All(entries) => entries.get(name),
            Binding::One(..) => self.outer?.find(name),
        }
    }

    fn names(&self) -> Vec<&'a str> {
        let mut names = self.outer.map(Bound::names).unwrap_or_default();
        match self.what {
            Binding::One(name, _) => names.push(name),
            Binding::All(entries) => names.extend(entries.keys().map(String::as_str)),
        }
        names
    }
}

/// Evaluates one expression of a file.
pub(crate) struct Evaluator<'a> {
    pub(crate) names: &'a Names,
    /// The text that the expressions were parsed from: spans are of it.
    pub(crate) text: &'a str,
    /// Whether a sensitive value was touched, so that nothing of the result may be shown.
    sensitive: Cell<bool>,
    /// Whether messages quote nothing, whatever is touched.
    quiet: bool,
    sight: Sight,
}

/// What an expression can refer to besides what it binds itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Variables, local values and paths.
    All,
    /// Nothing: what a template file is given is bound.
    Template,
    /// Nothing.
    Constant,
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(names: &'a Names, text: &'a str) -> Self {
        Self { names, text, sensitive: Cell::new(false), quiet: false, sight: Sight::All }
    }

    /// For a template file of this text: it sees only what its caller gives it.
    pub(crate) fn closed<'b>(&'b self, text: &'b str) -> Evaluator<'b> {
        Evaluator {
            names: self.names,
            text,
            sensitive: self.sensitive.clone(),
            quiet: self.quiet,
            sight: Sight::Template,
        }
    }

    /// For a value that cannot refer to anything.
    pub(crate) fn constant(self) -> Self {
        Self { sight: Sight::Constant, ..self }
    }

    /// Whether this evaluates a template file.
    pub(crate) fn is_template_file(&self) -> bool {
        self.sight == Sight::Template
    }

    /// For a place where people put secrets: messages quote nothing.
    pub(crate) fn quiet(self, quiet: bool) -> Self {
        Self { quiet, ..self }
    }

    /// Whether messages must quote nothing.
    fn is_quiet(&self) -> bool {
        self.quiet || self.sensitive.get()
    }

    /// Whether the result must not be shown.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.sensitive.get()
    }

    pub(crate) fn set_sensitive(&self, sensitive: bool) {
        self.sensitive.set(sensitive);
    }

    /// Evaluates an expression without bound names.
    pub(crate) fn value(&self, expr: &Expression) -> Outcome {
        self.eval(expr, None)
    }

    /// Takes from the budget.
    pub(crate) fn charge(&self, bytes: usize, span: &Range<usize>) -> Result<(), Failure> {
        match self.names.budget.get().checked_sub(bytes) {
            Some(left) => {
                self.names.budget.set(left);
                Ok(())
            }
            None => wrong(
                span.clone(),
                "the expressions make too much",
                format!(
                    "All expressions of a directory together may make about {} MiB of values.",
                    BUDGET >> 20
                ),
            ),
        }
    }

    /// What budget is left, in bytes.
    pub(crate) fn budget(&self) -> usize {
        self.names.budget.get()
    }

    pub(crate) fn eval(&self, expr: &Expression, bound: Option<&Bound<'_>>) -> Outcome {
        let span = span_of(expr);
        self.charge(16, &span)?;
        match expr {
            Expression::Null(_) => Ok(Value::Null),
            Expression::Bool(flag) => Ok(Value::Bool(**flag)),
            Expression::Number(number) => match (number.as_i64(), number.as_f64()) {
                (None, Some(float)) if number.is_f64() => {
                    Ok(Value::from_f64(float).unwrap_or(Value::Number(**number)))
                }
                _ => Ok(Value::Number(**number)),
            },
            Expression::String(text) => {
                self.charge(text.len(), &span)?;
                Ok(Value::String(text.value().clone()))
            }
            Expression::Array(array) => array
                .iter()
                .map(|item| self.eval(item, bound))
                .collect::<Result<_, _>>()
                .map(Value::List),
            Expression::Object(object) => self.object(object, bound),
            Expression::StringTemplate(template) => self.template(template, bound),
            Expression::HeredocTemplate(heredoc) => self.heredoc(heredoc, bound),
            Expression::Parenthesis(inner) => self.eval(inner.inner(), bound),
            Expression::Variable(name) => self.bare_name(name.as_str(), &span, bound),
            Expression::Conditional(conditional) => {
                let condition = self.eval(&conditional.cond_expr, bound)?;
                match condition.to_bool() {
                    Some(true) => self.eval(&conditional.true_expr, bound),
                    Some(false) => self.eval(&conditional.false_expr, bound),
                    None => wrong(
                        span_of(&conditional.cond_expr),
                        format!("a condition must be true or false, not {}", condition.kind()),
                        "What stands before the ? decides between the two values after it.",
                    ),
                }
            }
            Expression::FuncCall(call) => self.call(call, bound),
            Expression::Traversal(traversal) => self.traversal(traversal, bound),
            Expression::UnaryOp(op) => operation::unary(
                *op.operator.value(),
                self.eval(&op.expr, bound)?,
                span_of(&op.expr),
            ),
            Expression::BinaryOp(op) => operation::binary(self, op, bound),
            Expression::ForExpr(for_expr) => self.for_expr(for_expr, bound),
        }
    }

    fn object(&self, object: &Object, bound: Option<&Bound<'_>>) -> Outcome {
        let mut entries = BTreeMap::new();
        for (key, value) in object.iter() {
            let name = match key {
                ObjectKey::Ident(name) => name.as_str().to_owned(),
                ObjectKey::Expression(expr) => self.key(expr, bound)?,
            };
            let value = self.eval(value.expr(), bound)?;
            if entries.insert(name.clone(), value).is_some() {
                return wrong(
                    span_of(key),
                    format!("the key {} stands twice in one object", quoted(&name)),
                    "Remove one of them.",
                );
            }
        }
        Ok(Value::Map(entries))
    }

    fn key(&self, expr: &Expression, bound: Option<&Bound<'_>>) -> Result<String, Failure> {
        let key = self.eval(expr, bound)?;
        match key.to_text() {
            Some(text) => Ok(text),
            None => wrong(
                span_of(expr),
                format!("an object's key must be a string, not {}", key.kind()),
                "",
            ),
        }
    }

    fn call(&self, call: &FuncCall, bound: Option<&Bound<'_>>) -> Outcome {
        let span = span_of(call);
        let name = call.name.name.as_str();
        match name {
            _ if call.name.is_namespaced() => {}
            "try" => return self.attempt(call, bound),
            "can" => {
                return match self.attempt(call, bound) {
                    Ok(_) => Ok(Value::Bool(true)),
                    Err(Failure::At(_)) => Ok(Value::Bool(false)),
                    Err(Failure::Reported) => Err(Failure::Reported),
                };
            }
            _ => {}
        }
        let Some(function) = function::find(name).filter(|_| !call.name.is_namespaced()) else {
            let name_span = call.name.name.span().unwrap_or_else(|| span.clone());
            return wrong(
                name_span,
                format!("unknown function {}", quoted(name)),
                function::unknown_detail(name),
            );
        };
        let mut arguments = Vec::with_capacity(call.args.len());
        let mut spans = Vec::with_capacity(call.args.len());
        for (index, argument) in call.args.iter().enumerate() {
            let value = self.eval(argument, bound)?;
            if call.args.expand_final() && index + 1 == call.args.len() {
                let Value::List(items) = value else {
                    return wrong(
                        span_of(argument),
                        format!("only a list can be expanded with ..., not {}", value.kind()),
                        "",
                    );
                };
                spans.extend(items.iter().map(|_| span_of(argument)));
                arguments.extend(items);
            } else {
                arguments.push(value);
                spans.push(span_of(argument));
            }
        }
        let value = function::call(function, self, arguments).map_err(|problem| {
            let place = problem
                .argument
                .and_then(|index| spans.get(index).cloned())
                .unwrap_or_else(|| span.clone());
            let detail = if self.is_quiet() {
                "The call has sensitive values, so that the reason is not shown.".to_owned()
            } else {
                problem.message
            };
            let detail = format!("{detail}\nUsage: {}", function.signature);
            Failure::At(Box::new(Wrong {
                span: place,
                summary: format!("invalid call of {name}"),
                detail,
            }))
        })?;
        self.charge(value.weight(), &span)?;
        Ok(value)
    }

    /// The first argument that has a value: `try`.
    fn attempt(&self, call: &FuncCall, bound: Option<&Bound<'_>>) -> Outcome {
        let mut last =
            wrong(span_of(call), format!("{} needs an argument", call.name.name.as_str()), "");
        for argument in call.args.iter() {
            match self.eval(argument, bound) {
                Err(failure @ Failure::At(_)) => last = Err(failure),
                done => return done,
            }
        }
        last
    }

    fn for_expr(&self, for_expr: &ForExpr, bound: Option<&Bound<'_>>) -> Outcome {
        let span = span_of(for_expr);
        let collection = self.eval(&for_expr.intro.collection_expr, bound)?;
        let items = self.items(collection, span_of(&for_expr.intro.collection_expr))?;
        let mut list = Vec::new();
        let mut map: BTreeMap<String, Value> = BTreeMap::new();
        for (key, value) in &items {
            let outer = Bound::one(
                for_expr.intro.key_var.as_ref().map_or("", |name| name.as_str()),
                key,
                bound,
            );
            let inner = Bound::one(for_expr.intro.value_var.as_str(), value, Some(&outer));
            if let Some(condition) = &for_expr.cond {
                let held = self.eval(&condition.expr, Some(&inner))?;
                match held.to_bool() {
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        let summary =
                            format!("a condition must be true or false, not {}", held.kind());
                        return wrong(
                            span_of(&condition.expr),
                            summary,
                            "What stands after if decides whether an item is taken.",
                        );
                    }
                }
            }
            let made = self.eval(&for_expr.value_expr, Some(&inner))?;
            let Some(key_expr) = &for_expr.key_expr else {
                list.push(made);
                continue;
            };
            let key = self.key(key_expr, Some(&inner))?;
            if for_expr.grouping {
                match map.entry(key).or_insert_with(|| Value::List(Vec::new())) {
                    Value::List(group) => group.push(made),
                    _ => unreachable!("only lists are put in above"),
                }
            } else if map.insert(key.clone(), made).is_some() {
                let detail =
                    "Two items give it. Write ... after the value to collect them in a list.";
                return wrong(
                    span_of(key_expr),
                    format!("the key {} comes up twice", quoted(&key)),
                    detail,
                );
            }
        }
        self.charge(list.len() + map.len(), &span)?;
        Ok(if for_expr.key_expr.is_some() { Value::Map(map) } else { Value::List(list) })
    }

    /// What a `for` goes over: keys (or indexes) and values.
    pub(crate) fn items(
        &self,
        collection: Value,
        span: Range<usize>,
    ) -> Result<Vec<(Value, Value)>, Failure> {
        match collection {
            Value::List(items) => Ok(items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Value::from(index), item))
                .collect()),
            Value::Map(entries) => {
                Ok(entries.into_iter().map(|(key, value)| (Value::String(key), value)).collect())
            }
            other => {
                wrong(span, format!("for goes over a list or an object, not {}", other.kind()), "")
            }
        }
    }
}
