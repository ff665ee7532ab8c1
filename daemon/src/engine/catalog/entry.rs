//! One collection, view or time-series collection, as a listing reports it.

use mongodb::bson::{RawDocument, RawDocumentBuf};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, STORED_FUNCTIONS};

use super::make::create_command;
use crate::engine::element::{self, Element, Writer, elements};
use crate::mongo::ServerVersion;

/// What kind of thing a namespace names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Documents.
    Collection,
    /// A view on other namespaces.
    View,
    /// Measurements, kept in buckets beside it.
    TimeSeries,
}

impl Kind {
    /// The kind in words.
    #[must_use]
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Collection => "a collection",
            Self::View => "a view",
            Self::TimeSeries => "a time-series collection",
        }
    }
}

/// One entry of `listCollections`.
#[derive(Debug, Clone)]
pub struct CollectionInfo {
    /// Its name.
    pub namespace: Namespace,
    /// What it is.
    pub kind: Kind,
    /// Its name is no UTF-8: [`Self::namespace`] is what is shown of it, and nothing can be done
    /// with it by that.
    pub is_named_oddly: bool,
    /// The entry as the server gave it.
    pub raw: RawDocumentBuf,
}

impl CollectionInfo {
    /// Reads an entry of `listCollections`.
    pub fn new(db: &str, raw: RawDocumentBuf) -> Option<Self> {
        let name = element::text(&raw, "name")?;
        let is_named_oddly = std::str::from_utf8(name).is_err();
        let namespace = Namespace::new(db, element::shown(name));
        let kind = match raw.get_str("type").ok() {
            Some("view") => Kind::View,
            Some("timeseries") => Kind::TimeSeries,
            _ => Kind::Collection,
        };
        Some(Self { namespace, kind, is_named_oddly, raw })
    }

    /// The same under another name.
    #[must_use]
    pub fn named(&self, namespace: &Namespace) -> Self {
        Self {
            namespace: namespace.clone(),
            is_named_oddly: false,
            kind: self.kind,
            raw: self.raw.clone(),
        }
    }

    /// Where its documents are: for measurements, in the buckets beside it.
    #[must_use]
    pub fn data(&self) -> Namespace {
        match self.kind {
            Kind::TimeSeries => buckets_of(&self.namespace),
            Kind::Collection | Kind::View => self.namespace.clone(),
        }
    }

    /// Whether it has documents of its own.
    #[must_use]
    pub fn has_documents(&self) -> bool {
        self.kind != Kind::View
    }

    /// The bytes of its UUID.
    #[must_use]
    pub fn uuid(&self) -> Option<Vec<u8>> {
        let info = self.raw.get_document("info").ok()?;
        element::field(info, "uuid").map(|uuid| uuid.value.to_vec())
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> Option<&RawDocument> {
        self.raw.get_document("options").ok()
    }

    pub(super) fn set_options(&mut self, options: &RawDocument) {
        let mut raw = Writer::default();
        for field in elements(&self.raw) {
            match field.name {
                b"options" => raw.push_document(b"options", options),
                _ => raw.copy(&field),
            }
        }
        self.raw = raw.finish();
    }

    /// Whether it is capped: its documents then have an order to keep.
    #[must_use]
    pub fn is_capped(&self) -> bool {
        self.flag("capped")
    }

    /// Whether it is clustered: its record ids are then its `_id`s, not numbers.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.options().is_some_and(|options| matches!(options.get("clusteredIndex"), Ok(Some(_))))
    }

    /// Whether strings compare otherwise than by their bytes.
    #[must_use]
    pub fn has_collation(&self) -> bool {
        self.options().is_some_and(|options| matches!(options.get("collation"), Ok(Some(_))))
    }

    fn flag(&self, name: &str) -> bool {
        self.options().is_some_and(|options| options.get_bool(name).is_ok_and(|set| set))
    }

    /// The `create` command that makes it anew. Expiry is held off: it comes back when the run
    /// finalizes.
    #[must_use]
    pub fn create_command(&self) -> RawDocumentBuf {
        create_command(
            &self.namespace.collection,
            self.options(),
            self.raw.get_document("idIndex").ok(),
        )
    }
}

/// What the names of the collections begin with that hold a time-series collection's buckets.
const BUCKETS: &str = "system.buckets.";

/// Where a time-series collection's buckets are.
#[must_use]
pub fn buckets_of(namespace: &Namespace) -> Namespace {
    Namespace::new(&namespace.db, format!("{BUCKETS}{}", namespace.collection))
}

/// The time-series collection whose buckets these are; `None` for an ordinary namespace.
#[must_use]
pub fn owner_of(namespace: &Namespace) -> Option<Namespace> {
    let name = namespace.collection.strip_prefix(BUCKETS)?;
    Some(Namespace::new(&namespace.db, name))
}

/// The options of a time-series collection, of those that its buckets have: their own layout
/// follows from them.
#[must_use]
pub fn options_of_owner(of_buckets: &RawDocument) -> RawDocumentBuf {
    let mut options = Writer::default();
    let follows = |field: &Element<'_>| matches!(field.name, b"validator" | b"clusteredIndex");
    elements(of_buckets).filter(|field| !follows(field)).for_each(|field| options.copy(&field));
    options.finish()
}

/// The first version that reports changes of buckets and stored functions.
const SYSTEM_EVENTS: ServerVersion = ServerVersion::new(6, 0, 0);

/// The fault for something that this version cannot carry from a source of this version; `None`
/// where it can.
#[must_use]
pub fn unsupported(info: &CollectionInfo, source: ServerVersion) -> Option<Fault> {
    let has = |option: &str| {
        info.options().is_some_and(|options| matches!(options.get(option), Ok(Some(_))))
    };
    let why = if info.kind == Kind::TimeSeries && source < SYSTEM_EVENTS {
        "is a time-series collection, whose changes only MongoDB 6.0 and newer tell"
    } else if info.namespace.collection == STORED_FUNCTIONS && source < SYSTEM_EVENTS {
        "holds stored functions, whose changes only MongoDB 6.0 and newer tell"
    } else if has("encryptedFields") {
        "is a collection with Queryable Encryption (encryptedFields), which this version does not \
         migrate"
    } else {
        return None;
    };
    Some(Fault::new(FaultCode::UnsupportedNamespace, format!("{} {why}", info.namespace)))
}
