//! The operators: arithmetic, comparison, logic.

use std::cmp::Ordering;
use std::ops::Range;

use hcl_edit::Number;
use hcl_edit::expr::{BinaryOp, BinaryOperator, UnaryOperator};

use super::eval::{Bound, Evaluator, Failure, Outcome, span_of, wrong};
use super::value::Value;

/// `-x` and `!x`.
pub(crate) fn unary(operator: UnaryOperator, value: Value, span: Range<usize>) -> Outcome {
    match operator {
        UnaryOperator::Not => match value.to_bool() {
            Some(flag) => Ok(Value::Bool(!flag)),
            None => wrong(span, format!("! takes true or false, not {}", value.kind()), ""),
        },
        UnaryOperator::Neg => match value.to_number() {
            Some(number) => arithmetic(BinaryOperator::Minus, Number::from(0u8), number)
                .map_or_else(|problem| wrong(span, problem, ""), Ok),
            None => wrong(span, format!("- takes a number, not {}", value.kind()), ""),
        },
    }
}

/// Two operands and an operator; `&&` and `||` leave out what no longer matters.
pub(crate) fn binary(
    evaluator: &Evaluator<'_>,
    op: &BinaryOp,
    bound: Option<&Bound<'_>>,
) -> Outcome {
    let operator = *op.operator.value();
    let left = evaluator.eval(&op.lhs_expr, bound)?;
    if let BinaryOperator::And | BinaryOperator::Or = operator {
        let left = flag(operator, &left, span_of(&op.lhs_expr))?;
        if left == (operator == BinaryOperator::Or) {
            return Ok(Value::Bool(left));
        }
        let right = evaluator.eval(&op.rhs_expr, bound)?;
        return flag(operator, &right, span_of(&op.rhs_expr)).map(Value::Bool);
    }
    let right = evaluator.eval(&op.rhs_expr, bound)?;
    match operator {
        BinaryOperator::Eq => return Ok(Value::Bool(left == right)),
        BinaryOperator::NotEq => return Ok(Value::Bool(left != right)),
        _ => {}
    }
    let number = |value: &Value, span| match value.to_number() {
        Some(number) => Ok(number),
        None => wrong(
            span,
            format!("{} takes numbers, not {}", operator.as_str(), value.kind()),
            hint(operator, value),
        ),
    };
    let left = number(&left, span_of(&op.lhs_expr))?;
    let right = number(&right, span_of(&op.rhs_expr))?;
    arithmetic(operator, left, right).map_or_else(|problem| wrong(span_of(op), problem, ""), Ok)
}

fn hint(operator: BinaryOperator, value: &Value) -> &'static str {
    match (operator, value) {
        (BinaryOperator::Plus, Value::String(_)) => {
            "Texts are joined in a template, as in \"${var.a}-${var.b}\"."
        }
        (BinaryOperator::Plus, Value::List(_)) => "Lists are joined with concat.",
        (BinaryOperator::Plus, Value::Map(_)) => "Objects are joined with merge.",
        _ => "",
    }
}

fn flag(operator: BinaryOperator, value: &Value, span: Range<usize>) -> Result<bool, Failure> {
    match value.to_bool() {
        Some(flag) => Ok(flag),
        None => wrong(
            span,
            format!("{} takes true or false, not {}", operator.as_str(), value.kind()),
            "",
        ),
    }
}

/// How two numbers compare.
pub(crate) fn compare(left: &Number, right: &Number) -> Ordering {
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => float(left).total_cmp(&float(right)),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
        .filter(|_| !number.is_f64())
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(0.0)
}

fn arithmetic(operator: BinaryOperator, left: Number, right: Number) -> Result<Value, String> {
    let too_large = || "the result is too large".to_owned();
    let zero = compare(&right, &Number::from(0u8)) == Ordering::Equal;
    match operator {
        BinaryOperator::Less => return Ok(Value::Bool(compare(&left, &right).is_lt())),
        BinaryOperator::LessEq => return Ok(Value::Bool(compare(&left, &right).is_le())),
        BinaryOperator::Greater => return Ok(Value::Bool(compare(&left, &right).is_gt())),
        BinaryOperator::GreaterEq => return Ok(Value::Bool(compare(&left, &right).is_ge())),
        BinaryOperator::Div | BinaryOperator::Mod if zero => {
            return Err("division by zero".to_owned());
        }
        _ => {}
    }
    if let (Some(left), Some(right)) = (whole(&left), whole(&right)) {
        let exact = match operator {
            BinaryOperator::Plus => left.checked_add(right),
            BinaryOperator::Minus => left.checked_sub(right),
            BinaryOperator::Mul => left.checked_mul(right),
            BinaryOperator::Div if left % right == 0 => Some(left / right),
            BinaryOperator::Mod => Some(left % right),
            _ => None,
        };
        if let Some(exact) = exact {
            if let Ok(exact) = i64::try_from(exact) {
                return Ok(Value::Number(exact.into()));
            }
            if let Ok(exact) = u64::try_from(exact) {
                return Ok(Value::Number(exact.into()));
            }
        }
    }
    let (left, right) = (float(&left), float(&right));
    let result = match operator {
        BinaryOperator::Plus => left + right,
        BinaryOperator::Minus => left - right,
        BinaryOperator::Mul => left * right,
        BinaryOperator::Div => left / right,
        BinaryOperator::Mod => left % right,
        _ => return Err(format!("{} does not work on numbers", operator.as_str())),
    };
    Value::from_f64(result).ok_or_else(too_large)
}
