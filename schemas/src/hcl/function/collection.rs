//! Functions of lists and objects.

use std::collections::{BTreeMap, HashSet};

use super::super::value::Value;
use super::convert::{of_one_kind, set};
use super::{Answer, Call, Function, Problem, function, problem, problem_with};

pub(super) const FUNCTIONS: &[Function] = &[
    function("alltrue", "alltrue(list)", 1, Some(1), |call| {
        Ok(flags(call)?.into_iter().all(|flag| flag).into())
    }),
    function("anytrue", "anytrue(list)", 1, Some(1), |call| {
        Ok(flags(call)?.into_iter().any(|flag| flag).into())
    }),
    function("chunklist", "chunklist(list, size)", 2, Some(2), |call| match call.count(1)? {
        // As in Terraform: one chunk.
        0 => Ok(vec![Value::List(call.list(0)?.to_vec())].into()),
        size => Ok(call
            .list(0)?
            .chunks(size)
            .map(|chunk| Value::List(chunk.to_vec()))
            .collect::<Vec<_>>()
            .into()),
    }),
    function("coalesce", "coalesce(values...)", 1, None, |call| {
        let empty = |value: &Value| *value == Value::Null || *value == Value::from("");
        call.arguments.iter().find(|value| !empty(value)).map_or_else(
            || problem("All values are null or empty."),
            |found| {
                Ok(of_one_kind(std::iter::once(found).chain(&call.arguments).cloned().collect())
                    .swap_remove(0))
            },
        )
    }),
    function("coalescelist", "coalescelist(lists...)", 1, None, |call| {
        for index in 0..call.len() {
            if *call.value(index) != Value::Null && !call.list(index)?.is_empty() {
                return Ok(call.value(index).clone());
            }
        }
        problem("All lists are null or empty.")
    }),
    function("compact", "compact(list)", 1, Some(1), |call| {
        let full = |value: &&Value| **value != Value::Null && **value != Value::from("");
        Ok(call.list(0)?.iter().filter(full).cloned().collect::<Vec<_>>().into())
    }),
    function("concat", "concat(lists...)", 1, None, |call| {
        let lists: Result<Vec<&[Value]>, Problem> =
            (0..call.len()).map(|index| call.list(index)).collect();
        Ok(lists?.concat().into())
    }),
    function("contains", "contains(list, value)", 2, Some(2), |call| {
        Ok(call.list(0)?.contains(call.value(1)).into())
    }),
    function("distinct", "distinct(list)", 1, Some(1), distinct),
    function("element", "element(list, index)", 2, Some(2), element),
    function("flatten", "flatten(list)", 1, Some(1), |call| {
        let mut flat = Vec::new();
        flatten(call.list(0)?, &mut flat);
        Ok(flat.into())
    }),
    function("index", "index(list, value)", 2, Some(2), |call| {
        let found = call.list(0)?.iter().position(|item| item == call.value(1));
        found.map_or_else(
            || problem_with(1, "The list does not have this value."),
            |at| Ok(at.into()),
        )
    }),
    function("keys", "keys(object)", 1, Some(1), |call| {
        Ok(call.map(0)?.keys().map(|key| Value::from(key.as_str())).collect::<Vec<_>>().into())
    }),
    function("length", "length(value)", 1, Some(1), |call| match call.value(0) {
        Value::String(text) => Ok(text.chars().count().into()),
        Value::List(items) => Ok(items.len().into()),
        Value::Map(entries) => Ok(entries.len().into()),
        _ => call.expected(0, "a string, a list or an object"),
    }),
    function("lookup", "lookup(object, key, default)", 2, Some(3), |call| {
        match call.map(0)?.get(&call.text(1)?) {
            Some(found) => Ok(found.clone()),
            None if call.len() == 3 => Ok(call.value(2).clone()),
            None => problem_with(
                1,
                format!("The object has no key {}, and there is no default.", call.quoted(1)),
            ),
        }
    }),
    function("matchkeys", "matchkeys(values, keys, wanted)", 3, Some(3), |call| {
        let (values, keys, wanted) = (call.list(0)?, call.list(1)?, call.list(2)?);
        if values.len() != keys.len() {
            return problem("The lists of values and keys differ in length.");
        }
        let chosen = values
            .iter()
            .zip(keys)
            .filter(|(_, key)| wanted.contains(key))
            .map(|(value, _)| value.clone());
        Ok(chosen.collect::<Vec<_>>().into())
    }),
    function("merge", "merge(objects...)", 0, None, |call| {
        let mut merged = BTreeMap::new();
        for index in 0..call.len() {
            if *call.value(index) != Value::Null {
                merged.extend(
                    call.map(index)?.iter().map(|(key, value)| (key.clone(), value.clone())),
                );
            }
        }
        Ok(Value::Map(merged))
    }),
    function("one", "one(list)", 1, Some(1), |call| match call.list(0)? {
        [] => Ok(Value::Null),
        [only] => Ok(only.clone()),
        more => problem_with(0, format!("The list has {} elements, not one or none.", more.len())),
    }),
    function("range", "range(start, end, step)", 1, Some(3), range),
    function("reverse", "reverse(list)", 1, Some(1), |call| {
        Ok(call.list(0)?.iter().rev().cloned().collect::<Vec<_>>().into())
    }),
    function("setintersection", "setintersection(lists...)", 1, None, |call| {
        sets(call, |mut all, one| {
            all.retain(|item| one.contains(item));
            all
        })
    }),
    function("setproduct", "setproduct(lists...)", 2, None, set_product),
    function("setsubtract", "setsubtract(list, without)", 2, Some(2), |call| {
        sets(call, |mut all, one| {
            all.retain(|item| !one.contains(item));
            all
        })
    }),
    function("setunion", "setunion(lists...)", 1, None, |call| {
        sets(call, |mut all, one| {
            all.extend(one);
            all
        })
    }),
    function("slice", "slice(list, start, end)", 3, Some(3), |call| {
        let (list, start, end) = (call.list(0)?, call.count(1)?, call.count(2)?);
        match list.get(start..end) {
            Some(part) => Ok(part.to_vec().into()),
            None => problem(format!(
                "The list's length is {}; start and end must be within it, and in order.",
                list.len()
            )),
        }
    }),
    function("sort", "sort(list)", 1, Some(1), |call| {
        let mut texts = call.texts(0)?;
        texts.sort();
        Ok(texts.into_iter().map(Value::String).collect::<Vec<_>>().into())
    }),
    function("sum", "sum(list)", 1, Some(1), sum),
    function("transpose", "transpose(object)", 1, Some(1), transpose),
    function("values", "values(object)", 1, Some(1), |call| {
        Ok(call.map(0)?.values().cloned().collect::<Vec<_>>().into())
    }),
    function("zipmap", "zipmap(keys, values)", 2, Some(2), |call| {
        let (keys, values) = (call.texts(0)?, call.list(1)?);
        if keys.len() != values.len() {
            return problem("The lists differ in length.");
        }
        Ok(Value::Map(keys.into_iter().zip(values.iter().cloned()).collect()))
    }),
];

fn flags(call: &Call<'_>) -> Result<Vec<bool>, Problem> {
    let flags = call.list(0)?.iter().map(|item| match (item, item.to_bool()) {
        (_, Some(flag)) => Ok(flag),
        (Value::Null, None) => Ok(false),
        (other, None) => {
            problem_with(0, format!("Expected a list of bools; it has {}.", other.kind()))
        }
    });
    flags.collect()
}

fn distinct(call: &Call<'_>) -> Answer {
    let mut seen = HashSet::new();
    let items = of_one_kind(call.list(0)?.to_vec());
    Ok(items
        .into_iter()
        .filter(|item| seen.insert(serde_json::Value::from(item).to_string()))
        .collect::<Vec<_>>()
        .into())
}

fn element(call: &Call<'_>) -> Answer {
    let list = call.list(0)?;
    let size = i64::try_from(list.len()).unwrap_or(i64::MAX);
    if size == 0 {
        return problem_with(0, "The list is empty.");
    }
    // As in Terraform, the index wraps around.
    let at = usize::try_from(call.whole(1)?.rem_euclid(size)).unwrap_or(0);
    Ok(list[at].clone())
}

fn flatten(items: &[Value], flat: &mut Vec<Value>) {
    for item in items {
        match item {
            Value::List(inner) => flatten(inner, flat),
            other => flat.push(other.clone()),
        }
    }
}

fn range(call: &Call<'_>) -> Answer {
    /// As Terraform has it.
    const MOST: u32 = 1024;
    let (start, end) =
        if call.len() == 1 { (0.0, call.float(0)?) } else { (call.float(0)?, call.float(1)?) };
    let step = match call.len() {
        3 => call.float(2)?,
        _ if end < start => -1.0,
        _ => 1.0,
    };
    if step == 0.0 || (end > start && step < 0.0) || (end < start && step > 0.0) {
        return problem_with(call.len() - 1, "The step leads away from the end.");
    }
    let mut numbers = Vec::new();
    for index in 0..=MOST {
        // Multiplied, not added up: a sum of fractions strays.
        let at = start + step * f64::from(index);
        if (step > 0.0 && at >= end) || (step < 0.0 && at <= end) {
            return Ok(numbers.into());
        }
        let Some(number) = Value::from_f64(at) else { break };
        numbers.push(number);
    }
    problem(format!("A range has at most {MOST} numbers."))
}

/// Every way to take one element of each list, the last list's fastest.
fn set_product(call: &Call<'_>) -> Answer {
    let lists: Vec<&[Value]> =
        (0..call.len()).map(|index| call.list(index)).collect::<Result<_, _>>()?;
    let count = lists.iter().map(|list| list.len()).fold(1, usize::saturating_mul);
    call.room_for(count.saturating_mul(lists.len()).saturating_mul(48))?;
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for list in lists {
        rows = rows
            .iter()
            .flat_map(|row| {
                list.iter().map(|item| [row.as_slice(), std::slice::from_ref(item)].concat())
            })
            .collect();
    }
    Ok(rows.into_iter().map(Value::List).collect::<Vec<_>>().into())
}

fn sets(call: &Call<'_>, join: fn(Vec<Value>, Vec<Value>) -> Vec<Value>) -> Answer {
    let mut all = call.list(0)?.to_vec();
    for index in 1..call.len() {
        let one = call.list(index)?;
        // Compared each with each.
        call.room_for(all.len().saturating_mul(one.len()))?;
        all = join(all, one.to_vec());
    }
    Ok(set(all))
}

fn sum(call: &Call<'_>) -> Answer {
    let list = call.list(0)?;
    if list.is_empty() {
        return problem_with(0, "The list is empty.");
    }
    let mut whole = 0i128;
    let mut float = 0.0;
    let mut exact = true;
    for item in list {
        let Some(number) = item.to_number() else {
            return problem_with(0, format!("Expected a list of numbers; it has {}.", item.kind()));
        };
        exact &= number.as_i64().is_some();
        whole += i128::from(number.as_i64().unwrap_or(0));
        float += number.as_f64().unwrap_or(0.0);
    }
    match i64::try_from(whole) {
        Ok(whole) if exact => Ok(Value::Number(whole.into())),
        _ => Value::from_f64(float).map_or_else(|| problem("The sum is too large."), Ok),
    }
}

fn transpose(call: &Call<'_>) -> Answer {
    let mut turned: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, values) in call.map(0)? {
        let Value::List(values) = values else {
            return problem_with(0, "Expected an object of lists of strings.");
        };
        for value in values {
            let Some(text) = value.to_text() else {
                return problem_with(0, "Expected an object of lists of strings.");
            };
            turned.entry(text).or_default().push(key.as_str().into());
        }
    }
    Ok(Value::Map(turned.into_iter().map(|(key, list)| (key, Value::List(list))).collect()))
}
