//! Evaluates templates: quoted ones, heredocs and template files, with white space as Terraform
//! treats it.
//!
//! Terraform's scanner makes one token of each line of a heredoc or template file, and `~` trims
//! only the token beside it; `<<-` takes the smallest indentation off tokens that begin a line,
//! after that trimming. The parser does both otherwise, so that literals are taken from the source
//! text here and treated anew. Learned by trying Terraform 1.11.

use std::ops::Range;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::template::{Directive, Element, HeredocTemplate, Strip, Template};

use super::eval::{Bound, Evaluator, Failure, Outcome, span_of, wrong};
use super::value::Value;

/// What a template is made of, in its flat order.
enum Token {
    Literal(String),
    Control(Strip),
    /// An interpolation or directive that begins a line, and so ends all dedenting, is any control;
    /// this one ends the text.
    End,
}

/// The template's structure; literals are ranges of tokens.
enum Part<'t> {
    Literal(Range<usize>),
    Interpolation(&'t Expression),
    If { condition: &'t Expression, then: Vec<Part<'t>>, otherwise: Vec<Part<'t>> },
    For { key: Option<&'t str>, value: &'t str, collection: &'t Expression, body: Vec<Part<'t>> },
}

/// How literals of a template split into tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quoted,
    Lines,
}

impl<'a> Evaluator<'a> {
    /// A quoted template. One that is nothing but an interpolation gives that value as it is.
    pub(crate) fn template(&self, template: &Template, bound: Option<&Bound<'_>>) -> Outcome {
        if let Some(Element::Interpolation(interpolation)) = template.as_single_element() {
            return self.eval(&interpolation.expr, bound);
        }
        self.render(template, Kind::Quoted, "", false, bound)
    }

    /// A heredoc.
    pub(crate) fn heredoc(&self, heredoc: &HeredocTemplate, bound: Option<&Bound<'_>>) -> Outcome {
        let start = span_of(heredoc).start;
        let flush = self.text.get(start..).is_some_and(|text| text.starts_with("<<-"));
        self.render(&heredoc.template, Kind::Lines, self.text, flush, bound)
    }

    /// A template file, parsed from the evaluator's text.
    pub(crate) fn template_file(&self, template: &Template, bound: Option<&Bound<'_>>) -> Outcome {
        self.render(template, Kind::Lines, self.text, false, bound)
    }

    fn render(
        &self,
        template: &Template,
        kind: Kind,
        text: &str,
        flush: bool,
        bound: Option<&Bound<'_>>,
    ) -> Outcome {
        let mut tokens = Vec::new();
        let parts = outline(template, kind, text, &mut tokens);
        tokens.push(Token::End);
        trim(&mut tokens);
        if flush {
            dedent(&mut tokens);
        }
        let mut out = String::new();
        self.parts(&parts, &tokens, bound, &mut out)?;
        Ok(Value::String(out))
    }

    fn parts(
        &self,
        parts: &[Part<'_>],
        tokens: &[Token],
        bound: Option<&Bound<'_>>,
        out: &mut String,
    ) -> Result<(), Failure> {
        for part in parts {
            match part {
                Part::Literal(range) => {
                    for token in &tokens[range.clone()] {
                        if let Token::Literal(text) = token {
                            self.charge(text.len(), &(0..0))?;
                            out.push_str(text);
                        }
                    }
                }
                Part::Interpolation(expr) => {
                    let value = self.eval(expr, bound)?;
                    match value.to_text() {
                        Some(text) => {
                            self.charge(text.len(), &span_of(*expr))?;
                            out.push_str(&text);
                        }
                        None => {
                            return wrong(
                                span_of(*expr),
                                format!(
                                    "a template takes strings, numbers and bools, not {}",
                                    value.kind()
                                ),
                                "A list can be put together with join, anything with jsonencode.",
                            );
                        }
                    }
                }
                Part::If { condition, then, otherwise } => {
                    let held = self.eval(condition, bound)?;
                    match held.to_bool() {
                        Some(true) => self.parts(then, tokens, bound, out)?,
                        Some(false) => self.parts(otherwise, tokens, bound, out)?,
                        None => {
                            let summary =
                                format!("a condition must be true or false, not {}", held.kind());
                            return wrong(
                                span_of(*condition),
                                summary,
                                "What stands after if decides what the template writes.",
                            );
                        }
                    }
                }
                Part::For { key, value, collection, body } => {
                    let items = self.eval(collection, bound)?;
                    for (index, item) in &self.items(items, span_of(*collection))? {
                        self.charge(16, &span_of(*collection))?;
                        let outer = Bound::one(key.unwrap_or_default(), index, bound);
                        let inner = Bound::one(value, item, Some(&outer));
                        self.parts(body, tokens, Some(&inner), out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Lays a template out as tokens, and as parts that point into them.
fn outline<'t>(
    template: &'t Template,
    kind: Kind,
    text: &str,
    tokens: &mut Vec<Token>,
) -> Vec<Part<'t>> {
    let mut parts = Vec::new();
    for element in template.iter() {
        match element {
            Element::Literal(literal) => {
                let start = tokens.len();
                match kind {
                    Kind::Quoted => tokens.push(Token::Literal(literal.value().clone())),
                    Kind::Lines => {
                        // The parser has dedented its own copy already.
                        let raw = literal.span().and_then(|span| text.get(span));
                        let raw = raw.map(|raw| raw.replace("$${", "${").replace("%%{", "%{"));
                        let lines = raw.as_deref().unwrap_or(literal.value());
                        tokens.extend(
                            lines.split_inclusive('\n').map(|line| Token::Literal(line.to_owned())),
                        );
                    }
                }
                parts.push(Part::Literal(start..tokens.len()));
            }
            Element::Interpolation(interpolation) => {
                tokens.push(Token::Control(interpolation.strip));
                parts.push(Part::Interpolation(&interpolation.expr));
            }
            Element::Directive(directive) => match directive.as_ref() {
                Directive::If(directive) => {
                    tokens.push(Token::Control(directive.if_expr.strip));
                    let then = outline(&directive.if_expr.template, kind, text, tokens);
                    let otherwise = directive.else_expr.as_ref().map(|branch| {
                        tokens.push(Token::Control(branch.strip));
                        outline(&branch.template, kind, text, tokens)
                    });
                    tokens.push(Token::Control(directive.endif_expr.strip));
                    let condition = &directive.if_expr.cond_expr;
                    parts.push(Part::If {
                        condition,
                        then,
                        otherwise: otherwise.unwrap_or_default(),
                    });
                }
                Directive::For(directive) => {
                    let intro = &directive.for_expr;
                    tokens.push(Token::Control(intro.strip));
                    let body = outline(&intro.template, kind, text, tokens);
                    tokens.push(Token::Control(directive.endfor_expr.strip));
                    parts.push(Part::For {
                        key: intro.key_var.as_ref().map(|name| name.as_str()),
                        value: intro.value_var.as_str(),
                        collection: &intro.collection_expr,
                        body,
                    });
                }
            },
        }
    }
    parts
}

/// Trims the literals beside `~`.
fn trim(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        let Token::Control(strip) = tokens[at] else { continue };
        if strip.strip_start()
            && let Some(Token::Literal(before)) =
                at.checked_sub(1).and_then(|before| tokens.get_mut(before))
        {
            before.truncate(before.trim_end().len());
        }
        if strip.strip_end()
            && let Some(Token::Literal(after)) = tokens.get_mut(at + 1)
        {
            *after = after.trim_start().to_owned();
        }
    }
}

/// Takes the smallest indentation off the literals that begin a line; blank lines do not count.
fn dedent(tokens: &mut [Token]) {
    let mut least = usize::MAX;
    let mut begin_lines = Vec::new();
    let mut line_starts = true;
    for (at, token) in tokens.iter().enumerate() {
        if std::mem::take(&mut line_starts) {
            match token {
                Token::Literal(text) => {
                    let blank = text.trim_start().is_empty() && text.ends_with('\n');
                    if !blank {
                        least = least.min(text.chars().take_while(|c| c.is_whitespace()).count());
                        begin_lines.push(at);
                    }
                }
                Token::Control(_) => least = 0,
                Token::End => {}
            }
        }
        line_starts = matches!(token, Token::Literal(text) if text.ends_with('\n'));
    }
    for at in begin_lines {
        if let Token::Literal(text) = &mut tokens[at] {
            *text = text.chars().skip(least).collect();
        }
    }
}
