//! `format` and `formatlist`: the verbs of Terraform, which are those of Go.

use hcl_edit::Number;

use super::super::value::{Value, number_text};
use super::{Answer, Call, Problem, problem, problem_with};

/// Wider than anybody needs, and bounded.
const WIDEST: usize = 1024;

#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `format(pattern, values...)`.
pub(super) fn format(call: &Call<'_>) -> Answer {
    let pattern = call.text(0)?;
    expand(&pattern, &call.arguments[1..]).map(Value::String)
}

/// `formatlist(pattern, values...)`: once for each element; single values go into all.
pub(super) fn format_list(call: &Call<'_>) -> Answer {
    let pattern = call.text(0)?;
    let lengths: Vec<usize> = call.arguments[1..]
        .iter()
        .filter_map(|value| if let Value::List(items) = value { Some(items.len()) } else { None })
        .collect();
    let Some(&rounds) = lengths.first() else {
        return Ok(vec![Value::String(expand(&pattern, &call.arguments[1..])?)].into());
    };
    if lengths.iter().any(|&length| length != rounds) {
        return problem("The lists differ in length.");
    }
    let mut made = Vec::new();
    let mut bytes = 0usize;
    for round in 0..rounds {
        let values: Vec<Value> =
            call.arguments[1..]
                .iter()
                .map(|value| {
                    if let Value::List(items) = value {
                        items[round].clone()
                    } else {
                        value.clone()
                    }
                })
                .collect();
        let text = expand(&pattern, &values)?;
        bytes = bytes.saturating_add(text.len());
        call.room_for(bytes)?;
        made.push(Value::String(text));
    }
    Ok(made.into())
}

fn expand(pattern: &str, values: &[Value]) -> Result<String, Problem> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = 0;
    let mut by_position = false;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        loop {
            match chars.peek() {
                Some('-') => verb.minus = true,
                Some('+') => verb.plus = true,
                Some(' ') => verb.space = true,
                Some('0') => verb.zero = true,
                Some('#') => verb.sharp = true,
                _ => break,
            }
            chars.next();
        }
        verb.width = digits(&mut chars)?;
        if chars.peek() == Some(&'.') {
            chars.next();
            verb.precision = Some(digits(&mut chars)?.unwrap_or(0));
        }
        let chosen = position(&mut chars)?;
        let Some(letter) = chars.next() else {
            return problem_with(0, "The pattern ends within a %; write %% for a percent sign.");
        };
        if letter == '%' {
            out.push('%');
            continue;
        }
        if let Some(position) = chosen {
            by_position = true;
            next = position;
        }
        let Some(value) = values.get(next) else {
            return problem(format!(
                "The pattern asks for more values than there are: {}.",
                values.len()
            ));
        };
        next += 1;
        write_value(&mut out, letter, &verb, value, next)?;
    }
    // Values that are chosen by their position may be left out.
    if !by_position && next < values.len() {
        return problem(format!("The pattern uses {next} of {} values.", values.len()));
    }
    Ok(out)
}

/// The value that `[2]` before a verb chooses, counted from 0.
fn position(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<Option<usize>, Problem> {
    if chars.peek() != Some(&'[') {
        return Ok(None);
    }
    chars.next();
    let number = digits(chars)?;
    match (number.and_then(|number| number.checked_sub(1)), chars.next()) {
        (Some(position), Some(']')) => Ok(Some(position)),
        _ => problem_with(0, "A value is chosen by its number, counted from 1, as in %[2]s."),
    }
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, Problem> {
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
    }
    match number {
        Some(number) if number > WIDEST => {
            problem_with(0, format!("Widths and precisions go up to {WIDEST}."))
        }
        number => Ok(number),
    }
}

fn write_value(
    out: &mut String,
    letter: char,
    verb: &Verb,
    value: &Value,
    argument: usize,
) -> Result<(), Problem> {
    let mismatch = |what: &str| {
        problem_with(argument, format!("%{letter} takes {what}, got {}.", value.kind()))
    };
    let number = || value.to_number();
    let text = match letter {
        'v' => match value {
            value if verb.sharp => super::convert::json_text(value),
            Value::String(text) => cut(text, verb.precision),
            Value::Number(number) => signed(number_text(number), verb),
            Value::Null => "null".to_owned(),
            other => serde_json::Value::from(other).to_string(),
        },
        's' => match value.to_text() {
            Some(text) => cut(&text, verb.precision),
            None => return mismatch("a string"),
        },
        'q' => match value.to_text() {
            Some(text) => serde_json::Value::from(cut(&text, verb.precision)).to_string(),
            None => return mismatch("a string"),
        },
        't' => match value.to_bool() {
            Some(flag) => {
                // Terraform takes no notice of its width.
                out.push_str(if flag { "true" } else { "false" });
                return Ok(());
            }
            None => return mismatch("a bool"),
        },
        'd' | 'x' | 'X' | 'o' | 'b' => match number().as_ref().and_then(whole) {
            Some(whole) => {
                let size = whole.unsigned_abs();
                let digits = match letter {
                    'd' => size.to_string(),
                    'x' => format!("{size:x}"),
                    'X' => format!("{size:X}"),
                    'o' => format!("{size:o}"),
                    _ => format!("{size:b}"),
                };
                signed(if whole < 0 { format!("-{digits}") } else { digits }, verb)
            }
            None => return mismatch("a whole number"),
        },
        'f' | 'e' | 'E' | 'g' | 'G' => match number().as_ref().and_then(Number::as_f64) {
            Some(float) => signed(decimal(float, letter, verb.precision), verb),
            None => return mismatch("a number"),
        },
        _ => {
            return problem_with(
                0,
                format!(
                    "%{letter} is no verb; there are %s %d %f %e %g %t %v %q %x %X %o %b and %%."
                ),
            );
        }
    };
    pad(out, &text, verb, !matches!(letter, 's' | 'q' | 'v'));
    Ok(())
}

fn whole(number: &Number) -> Option<i128> {
    match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) => Some(i128::from(whole)),
        (None, Some(whole)) => Some(i128::from(whole)),
        (None, None) => None,
    }
}

fn cut(text: &str, precision: Option<usize>) -> String {
    precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
}

fn signed(text: String, verb: &Verb) -> String {
    match (text.starts_with('-'), verb.plus, verb.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    }
}

/// Go writes exponents with a sign and two digits.
fn exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, power)) => match power.strip_prefix('-') {
            Some(power) => format!("{digits}e-{power:0>2}"),
            None => format!("{digits}e+{power:0>2}"),
        },
        None => text.to_owned(),
    }
}

fn decimal(float: f64, letter: char, precision: Option<usize>) -> String {
    match letter {
        'f' => format!("{float:.*}", precision.unwrap_or(6)),
        'e' => exponent(&format!("{float:.*e}", precision.unwrap_or(6))),
        'E' => exponent(&format!("{float:.*e}", precision.unwrap_or(6))).to_uppercase(),
        _ => {
            let size = float.abs();
            let short = size == 0.0 || (1e-4..1e21).contains(&size);
            let text = if short { float.to_string() } else { exponent(&format!("{float:e}")) };
            if letter == 'G' { text.to_uppercase() } else { text }
        }
    }
}

fn pad(out: &mut String, text: &str, verb: &Verb, number: bool) {
    let missing = verb.width.unwrap_or(0).saturating_sub(text.chars().count());
    if verb.minus {
        out.push_str(text);
        out.push_str(&" ".repeat(missing));
    } else if verb.zero && number {
        let sign = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
        out.push_str(&text[..sign]);
        out.push_str(&"0".repeat(missing));
        out.push_str(&text[sign..]);
    } else {
        out.push_str(&" ".repeat(missing));
        out.push_str(text);
    }
}
