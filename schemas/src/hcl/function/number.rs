//! Functions of numbers.

use super::super::operation::compare;
use super::super::value::Value;
use super::{Answer, Call, Function, Problem, function, problem, problem_with};

pub(super) const FUNCTIONS: &[Function] = &[
    function("abs", "abs(number)", 1, Some(1), |call| match call.number(0)?.as_i64() {
        Some(whole) if whole != i64::MIN => Ok(Value::Number(whole.abs().into())),
        _ => float(call.float(0)?.abs()),
    }),
    function("ceil", "ceil(number)", 1, Some(1), |call| rounded(call, f64::ceil)),
    function("floor", "floor(number)", 1, Some(1), |call| rounded(call, f64::floor)),
    function("log", "log(number, base)", 2, Some(2), |call| {
        float(call.float(0)?.log(call.float(1)?))
    }),
    function("max", "max(numbers...)", 1, None, |call| extreme(call, std::cmp::Ordering::Greater)),
    function("min", "min(numbers...)", 1, None, |call| extreme(call, std::cmp::Ordering::Less)),
    function("parseint", "parseint(string, base)", 2, Some(2), parse_int),
    function("pow", "pow(number, power)", 2, Some(2), |call| {
        float(call.float(0)?.powf(call.float(1)?))
    }),
    function("signum", "signum(number)", 1, Some(1), |call| {
        let number = call.float(0)?;
        Ok(Value::Number(
            if number > 0.0 {
                1
            } else if number < 0.0 {
                -1
            } else {
                0
            }
            .into(),
        ))
    }),
];

fn float(number: f64) -> Answer {
    Value::from_f64(number).map_or_else(|| problem("The result is not a finite number."), Ok)
}

fn rounded(call: &Call<'_>, round: fn(f64) -> f64) -> Answer {
    if call.number(0)?.is_f64() {
        float(round(call.float(0)?))
    } else {
        Ok(Value::Number(call.number(0)?))
    }
}

fn extreme(call: &Call<'_>, wanted: std::cmp::Ordering) -> Answer {
    let mut best = call.number(0)?;
    for index in 1..call.len() {
        let number = call.number(index)?;
        if compare(&number, &best) == wanted {
            best = number;
        }
    }
    Ok(Value::Number(best))
}

fn parse_int(call: &Call<'_>) -> Answer {
    let base = u32::try_from(call.whole(1)?).ok().filter(|base| (2..=36).contains(base));
    let Some(base) = base else { return problem_with(1, "A base is a whole number from 2 to 36.") };
    match i64::from_str_radix(&call.text(0)?, base) {
        Ok(number) => Ok(Value::Number(number.into())),
        Err(_) => Err(Problem {
            argument: Some(0),
            message: format!("{} is no number of base {base}.", call.quoted(0)),
        }),
    }
}
