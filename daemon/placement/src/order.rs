//! The server's order of values and of documents, under the simple collation.
//!
//! Values of different types come in the order of their [`canonical_type`]; all numbers are one
//! type and compare exactly, whatever holds them.

use std::cmp::Ordering;

use mongodb::bson::{Decimal128, RawDocument};

use crate::element::{Element, elements};

/// The rank of a type among the others, as the server has it (`canonicalizeBSONType`).
#[must_use]
pub const fn canonical_type(kind: u8) -> i32 {
    match kind {
        0xff => -1,
        0x0a => 5,
        0x01 | 0x10 | 0x12 | 0x13 => 10,
        0x02 | 0x0e => 15,
        0x03 => 20,
        0x04 => 25,
        0x05 => 30,
        0x07 => 35,
        0x08 => 40,
        0x09 => 45,
        0x11 => 47,
        0x0b => 50,
        0x0c => 55,
        0x0d => 60,
        0x0f => 65,
        0x7f => 127,
        // Undefined, and the end of a document.
        _ => 0,
    }
}

/// Compares two values; their names do not count.
#[must_use]
pub fn compare(left: &Element<'_>, right: &Element<'_>) -> Ordering {
    let by_type = canonical_type(left.kind).cmp(&canonical_type(right.kind));
    if by_type.is_ne() {
        return by_type;
    }
    let (a, b) = (left.value, right.value);
    match left.kind {
        0x01 | 0x10 | 0x12 | 0x13 => Number::of(left).compare(&Number::of(right)),
        0x02 | 0x0e | 0x0d => text(a).cmp(text(b)),
        0x03 => compare_fields(left, right, true),
        0x04 => compare_fields(left, right, false),
        // Length, subtype, bytes.
        0x05 => binary_length(a).cmp(&binary_length(b)).then_with(|| a.get(4..).cmp(&b.get(4..))),
        0x08 => a.cmp(b),
        0x09 => i64::from_le_bytes(fixed(a)).cmp(&i64::from_le_bytes(fixed(b))),
        0x11 => u64::from_le_bytes(fixed(a)).cmp(&u64::from_le_bytes(fixed(b))),
        0x0c => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        0x0f => {
            let ((code, scope), (other_code, other_scope)) =
                (code_with_scope(a), code_with_scope(b));
            code.cmp(other_code).then_with(|| match (scope, other_scope) {
                (Some(scope), Some(other)) => compare_documents(scope, other),
                (scope, other) => scope.is_some().cmp(&other.is_some()),
            })
        }
        // An ObjectId; a regular expression, two texts that end with NUL.
        _ => a.cmp(b),
    }
}

/// Compares two documents field by field: type, then name, then value.
#[must_use]
pub fn compare_documents(left: &RawDocument, right: &RawDocument) -> Ordering {
    compare_lists(elements(left), elements(right), true)
}

fn compare_fields(left: &Element<'_>, right: &Element<'_>, names: bool) -> Ordering {
    compare_lists(
        left.document().into_iter().flat_map(elements),
        right.document().into_iter().flat_map(elements),
        names,
    )
}

fn compare_lists<'a>(
    mut left: impl Iterator<Item = Element<'a>>,
    mut right: impl Iterator<Item = Element<'a>>,
    names: bool,
) -> Ordering {
    loop {
        let (a, b) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => (a, b),
        };
        let mut order = canonical_type(a.kind).cmp(&canonical_type(b.kind));
        if names {
            order = order.then_with(|| a.name.cmp(b.name));
        }
        let order = order.then_with(|| compare(&a, &b));
        if order.is_ne() {
            return order;
        }
    }
}

/// The bytes of a number of fixed size; zeros where they are not that many, which no server sends.
pub(crate) fn fixed<const N: usize>(value: &[u8]) -> [u8; N] {
    value.try_into().unwrap_or([0; N])
}

/// A text without its length and its NUL.
fn text(value: &[u8]) -> &[u8] {
    value.get(4..value.len().saturating_sub(1)).unwrap_or_default()
}

fn binary_length(value: &[u8]) -> i32 {
    i32::from_le_bytes(fixed(value.get(..4).unwrap_or_default()))
}

/// The text, with its NUL, and the scope of code that has one.
pub(crate) fn code_with_scope(value: &[u8]) -> (&[u8], Option<&RawDocument>) {
    let length = usize::try_from(binary_length(value.get(4..).unwrap_or_default())).unwrap_or(0);
    let code = value.get(8..8 + length).unwrap_or_default();
    (code, value.get(8 + length..).and_then(|scope| RawDocument::from_bytes(scope).ok()))
}

/// A number of any type, exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    /// Below all others, and equal to itself.
    Nan,
    Infinite {
        negative: bool,
    },
    /// `coefficient * 10^tens * 2^twos`.
    Finite {
        negative: bool,
        coefficient: u128,
        tens: i32,
        twos: i32,
    },
}

impl Number {
    fn of(value: &Element<'_>) -> Self {
        match value.kind {
            0x01 => Self::of_double(f64::from_le_bytes(fixed(value.value))),
            0x10 => Self::of_integer(i64::from(i32::from_le_bytes(fixed(value.value)))),
            0x12 => Self::of_integer(i64::from_le_bytes(fixed(value.value))),
            _ => Self::of_decimal(Decimal128::from_bytes(fixed(value.value))),
        }
    }

    fn of_integer(value: i64) -> Self {
        Self::Finite {
            negative: value < 0,
            coefficient: u128::from(value.unsigned_abs()),
            tens: 0,
            twos: 0,
        }
    }

    fn of_double(value: f64) -> Self {
        if value.is_nan() {
            return Self::Nan;
        }
        let negative = value.is_sign_negative();
        if value.is_infinite() {
            return Self::Infinite { negative };
        }
        // IEEE 754 binary64: 52 bits of fraction, a biased exponent of 11 bits; exponent 0 has no
        // hidden bit.
        let bits = value.to_bits();
        let (fraction, exponent) = (bits & ((1 << 52) - 1), ((bits >> 52) & 0x7ff) as i32);
        let (coefficient, twos) =
            if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
        Self::Finite { negative, coefficient: u128::from(coefficient), tens: 0, twos }
    }

    pub(crate) fn of_decimal(value: Decimal128) -> Self {
        // IEEE 754 decimal128, binary integer coefficient: 113 bits of coefficient, a biased
        // exponent of 14 bits.
        let bits = u128::from_le_bytes(value.bytes());
        let negative = bits >> 127 == 1;
        let combination = (bits >> 122) & 0x1f;
        if combination == 0x1f {
            return Self::Nan;
        }
        if combination == 0x1e {
            return Self::Infinite { negative };
        }
        // A coefficient of the large form is over 34 digits, which the standard reads as zero.
        let (exponent, coefficient) = if combination >> 3 == 3 {
            ((bits >> 111) & 0x3fff, 0)
        } else {
            ((bits >> 113) & 0x3fff, bits & ((1 << 113) - 1))
        };
        let coefficient = if coefficient >= 10_u128.pow(34) { 0 } else { coefficient };
        Self::Finite { negative, coefficient, tens: exponent as i32 - 6176, twos: 0 }
    }

    /// The nearest whole number, of two the even one; no number as 0, and the nearest `i64` where
    /// it is too large. For decimals.
    pub(crate) fn rounded(&self) -> i64 {
        match *self {
            Self::Nan => 0,
            Self::Infinite { negative } => clamp(negative, u128::MAX),
            Self::Finite { negative, mut coefficient, mut tens, .. } => {
                if tens < 0 {
                    // A coefficient has 34 digits at most: of what is divided by more, nothing is
                    // left.
                    let Some(divisor) =
                        10_u128.checked_pow(tens.unsigned_abs()).filter(|_| tens > -36)
                    else {
                        return 0;
                    };
                    let (whole, rest) = (coefficient / divisor, coefficient % divisor);
                    let is_up = rest * 2 > divisor || (rest * 2 == divisor && whole % 2 == 1);
                    return clamp(negative, whole + u128::from(is_up));
                }
                while tens > 0 && coefficient > 0 && coefficient <= u128::from(u64::MAX) {
                    (coefficient, tens) = (coefficient * 10, tens - 1);
                }
                clamp(negative, coefficient)
            }
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Nan, Self::Nan) => Ordering::Equal,
            (Self::Nan, _) => Ordering::Less,
            (_, Self::Nan) => Ordering::Greater,
            (left, right) => match (left.sign(), right.sign()) {
                (a, b) if a != b => a.cmp(&b),
                (0, _) => Ordering::Equal,
                (sign, _) => {
                    let by_size = left.compare_size(right);
                    if sign < 0 { by_size.reverse() } else { by_size }
                }
            },
        }
    }

    fn sign(&self) -> i8 {
        match self {
            Self::Nan | Self::Finite { coefficient: 0, .. } => 0,
            Self::Infinite { negative } | Self::Finite { negative, .. } => {
                if *negative {
                    -1
                } else {
                    1
                }
            }
        }
    }

    fn compare_size(&self, other: &Self) -> Ordering {
        match (self, other) {
            (
                Self::Finite { coefficient: a, tens: a_tens, twos: a_twos, .. },
                Self::Finite { coefficient: b, tens: b_tens, twos: b_twos, .. },
            ) => {
                if (a_tens, a_twos) == (b_tens, b_twos) {
                    return a.cmp(b);
                }
                // Nearly always told by the powers of two that enclose them; what is left is
                // computed exactly.
                let (size, other_size) =
                    (magnitude(*a, *a_tens, *a_twos), magnitude(*b, *b_tens, *b_twos));
                if (size - other_size).abs() > 1.0 {
                    return size.total_cmp(&other_size);
                }
                let (tens, twos) = (*a_tens.min(b_tens), *a_twos.min(b_twos));
                let scaled = |n: u128, n_tens: i32, n_twos: i32| {
                    Big::new(n)
                        .times_power(10, n_tens.abs_diff(tens))
                        .times_power(2, n_twos.abs_diff(twos))
                };
                scaled(*a, *a_tens, *a_twos).compare(&scaled(*b, *b_tens, *b_twos))
            }
            (left, right) => {
                matches!(left, Self::Infinite { .. }).cmp(&matches!(right, Self::Infinite { .. }))
            }
        }
    }
}

/// About the logarithm to base 2.
fn magnitude(coefficient: u128, tens: i32, twos: i32) -> f64 {
    (coefficient as f64).log2() + f64::from(tens) * std::f64::consts::LOG2_10 + f64::from(twos)
}

fn clamp(negative: bool, size: u128) -> i64 {
    match (negative, i64::try_from(size)) {
        (false, Ok(value)) => value,
        (true, Ok(value)) => -value,
        (false, Err(_)) => i64::MAX,
        (true, Err(_)) => i64::MIN,
    }
}

/// A whole number of any size, little end first.
struct Big(Vec<u32>);

impl Big {
    fn new(mut value: u128) -> Self {
        let mut digits = Vec::new();
        while value > 0 {
            digits.push(value as u32);
            value >>= 32;
        }
        Self(digits)
    }

    fn times_power(mut self, base: u32, times: u32) -> Self {
        for _ in 0..times {
            let mut carry = 0_u64;
            for digit in &mut self.0 {
                let product = u64::from(*digit) * u64::from(base) + carry;
                (*digit, carry) = (product as u32, product >> 32);
            }
            if carry > 0 {
                self.0.push(carry as u32);
            }
        }
        self
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::{compare, compare_documents};
    use crate::element::{elements, field};
    use mongodb::bson::{Bson, Decimal128, RawDocumentBuf, Timestamp, doc, oid::ObjectId, rawdoc};

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"))
    }

    #[test]
    fn values_are_in_the_servers_order() {
        // Each below the next; those in one row equal.
        let ordered: Vec<Vec<Bson>> = vec![
            vec![Bson::MinKey],
            vec![Bson::Null],
            vec![f64::NAN.into(), decimal("NaN")],
            vec![f64::NEG_INFINITY.into(), decimal("-Infinity")],
            vec![decimal("-1E+400")],
            vec![(-1e308).into()],
            vec![
                i64::MIN.into(),
                (-9_223_372_036_854_775_808.0).into(),
                decimal("-9223372036854775808"),
            ],
            vec![(-1).into(), (-1.0).into(), decimal("-1.000")],
            vec![decimal("-0.1")],
            vec![0.into(), 0.0.into(), (-0.0).into(), decimal("0E+10"), decimal("-0")],
            vec![f64::from_bits(1).into()],
            vec![decimal("0.1")],
            // The double nearest to 0.1 has more digits than a decimal holds.
            vec![decimal("0.1000000000000000055511151231257827")],
            vec![0.1.into()],
            vec![1.into(), 1_i64.into(), 1.0.into(), decimal("10E-1")],
            vec![9_007_199_254_740_992_i64.into(), 9_007_199_254_740_992.0.into()],
            vec![9_007_199_254_740_993_i64.into(), decimal("9007199254740993")],
            vec![9_007_199_254_740_994_i64.into(), 9_007_199_254_740_994.0.into()],
            vec![i64::MAX.into()],
            vec![9_223_372_036_854_775_808.0.into(), decimal("9223372036854775808")],
            vec![1e300.into()],
            vec![decimal("1E+6144")],
            vec![f64::INFINITY.into(), decimal("Infinity")],
            vec!["".into()],
            vec!["B".into(), Bson::Symbol("B".into())],
            vec!["a".into()],
            vec!["a\0".into()],
            vec!["ab".into()],
            vec![Bson::Document(doc! {})],
            vec![Bson::Document(doc! { "b": 1 }), Bson::Document(doc! { "b": 1.0 })],
            vec![Bson::Document(doc! { "b": 1, "a": 1 })],
            vec![Bson::Document(doc! { "a": "x" })],
            vec![Bson::Array(vec![])],
            vec![Bson::Array(vec![1.into()])],
            vec![Bson::Array(vec![1.into(), 0.into()])],
            vec![ObjectId::from_bytes([0; 12]).into()],
            vec![ObjectId::from_bytes([1; 12]).into()],
            vec![false.into()],
            vec![true.into()],
            vec![mongodb::bson::DateTime::from_millis(-1).into()],
            vec![mongodb::bson::DateTime::from_millis(1).into()],
            vec![Timestamp { time: 0, increment: 2 }.into()],
            vec![Timestamp { time: u32::MAX, increment: 1 }.into()],
            vec![Bson::MaxKey],
        ];
        let flat: Vec<(usize, RawDocumentBuf)> = ordered
            .into_iter()
            .enumerate()
            .flat_map(|(rank, row)| row.into_iter().map(move |value| (rank, value)))
            .map(|(rank, value)| {
                (rank, RawDocumentBuf::try_from(&doc! { "v": value }).expect("a document"))
            })
            .collect();
        for (rank, document) in &flat {
            for (other_rank, other) in &flat {
                let (left, right) =
                    (field(document, "v").expect("a value"), field(other, "v").expect("a value"));
                assert_eq!(compare(&left, &right), rank.cmp(other_rank), "{document:?} {other:?}");
            }
        }
    }

    #[test]
    fn documents_compare_by_type_then_name_then_value() {
        assert_eq!(compare_documents(&rawdoc! { "a": 9 }, &rawdoc! { "b": 1 }), Ordering::Less);
        assert_eq!(compare_documents(&rawdoc! { "b": 9 }, &rawdoc! { "a": "" }), Ordering::Less);
        assert_eq!(
            compare_documents(&rawdoc! { "a": 1 }, &rawdoc! { "a": 1, "b": 1 }),
            Ordering::Less
        );
        assert_eq!(elements(&rawdoc! { "a": 1 }).count(), 1);
    }
}
