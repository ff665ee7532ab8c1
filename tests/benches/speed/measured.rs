//! What one run of one contender gave, and what several of them come to.

use serde::Serialize;

/// One run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measured {
    /// Wall time.
    pub(crate) seconds: f64,
    /// Processor time of the tool.
    pub(crate) own_cpu: f64,
    /// The most memory that the tool had resident, in bytes.
    pub(crate) own_peak: u64,
    /// Processor time of the source's server.
    pub(crate) source_cpu: f64,
    /// Processor time of the destination's server.
    pub(crate) destination_cpu: f64,
    /// Documents, or events.
    pub(crate) work: u64,
    /// Figures of this case alone, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) more: Vec<(String, f64)>,
    /// Bytes that the destination had received by a second of the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) received: Vec<(f64, f64)>,
}

/// A contender's runs of one case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The case, with its size or its backlog.
    pub(crate) case: String,
    /// Who ran.
    pub(crate) contender: String,
    /// GB of documents, where the case is of a size.
    pub(crate) gigabytes: Option<f64>,
    /// Each run.
    pub(crate) runs: Vec<Measured>,
}

impl Row {
    /// The median over the runs of a figure.
    pub(crate) fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }

    /// The lowest and the highest of a figure.
    pub(crate) fn spread(&self, of: impl Fn(&Measured) -> f64) -> (f64, f64) {
        let values: Vec<f64> = self.runs.iter().map(of).collect();
        (
            values.iter().copied().fold(f64::INFINITY, f64::min),
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        )
    }

    /// The median of a figure that only some cases have.
    pub(crate) fn more(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self
            .runs
            .iter()
            .flat_map(|run| &run.more)
            .filter(|(known, _)| known == name)
            .map(|(_, value)| *value)
            .collect();
        (!values.is_empty()).then(|| median(values))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
