//! The operations that are carried: what is there before, and what happens.

use mongodb::bson::{Bson, DateTime, Document, doc};

/// Operations on a database of their own, `@` in their texts; `@2` is another one.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What is there before the run begins.
    pub(super) before: Vec<Document>,
    /// What happens.
    pub(super) act: Vec<Document>,
}

fn case(name: &'static str, before: Vec<Document>, act: Vec<Document>) -> Case {
    Case { name, before, act }
}

pub(super) fn insert(collection: &str, documents: Vec<Document>) -> Document {
    doc! { "insert": collection, "documents": documents }
}

pub(super) fn numbered(count: i32) -> Vec<Document> {
    (0..count).map(
        |n| doc! {
            "_id": n, "n": n, "list": [1, 2, 3, 4, 5],
            "nested": { "a": { "b": n }, "list": [{ "k": 1 }, { "k": 2 }] }, "text": "some text",
        }
    ).collect()
}

fn update(collection: &str, updates: Vec<(Document, Bson)>) -> Document {
    let updates: Vec<Document> =
        updates.into_iter().map(|(q, u)| doc! { "q": q, "u": u, "multi": false }).collect();
    doc! { "update": collection, "updates": updates }
}

fn stored(name: &str, n: i32) -> Document {
    doc! { "_id": name, "value": Bson::JavaScriptCode("function () { return 1 }".into()), "n": n }
}

fn pipeline(stages: Vec<Document>) -> Bson {
    Bson::Array(stages.into_iter().map(Bson::Document).collect())
}

pub(super) fn cases() -> Vec<Case> {
    let id = |n: i32| doc! { "_id": n };
    let mut cases = vec![
        case(
            "insert",
            vec![],
            vec![insert("c", numbered(20)), insert("d", vec![doc! { "_id": "x" }])],
        ),
        case(
            "set",
            vec![insert("c", numbered(12))],
            vec![update(
                "c",
                vec![
                    (
                        id(0),
                        doc! {
                            "$set": { "n": 5, "new": 1, "nested.a.b": 7, "nested.a.c": { "d": 1 } }
                        }
                        .into(),
                    ),
                    (id(1), doc! { "$unset": { "n": 1, "nested.a": 1 } }.into()),
                    (id(2), doc! { "$rename": { "n": "m", "nested.a": "moved" } }.into()),
                    (id(3), doc! { "$inc": { "n": 5 }, "$mul": { "nested.a.b": 3 } }.into()),
                    (
                        id(4),
                        doc! {
                            "$min": { "n": 1 }, "$max": { "nested.a.b": 99 },
                            "$bit": { "bits": { "or": 5 } },
                        }
                        .into(),
                    ),
                    (
                        id(5),
                        doc! {
                            "$currentDate": { "at": true, "ts": { "$type": "timestamp" } }
                        }
                        .into(),
                    ),
                    (
                        id(6),
                        doc! {
                            "$set": { "text": Bson::Null }, "$unset": { "list": 1 },
                            "$inc": { "list2": 1 },
                        }
                        .into(),
                    ),
                    (
                        id(7),
                        doc! {
                            "$set": {
                                "a.0.b.1": 1, "0": "numeric name", "nested.0": 2,
                                "nested.list.0.k": 9,
                            }
                        }
                        .into(),
                    ),
                    (id(8), doc! { "$setOnInsert": { "x": 1 }, "$set": { "z": 1 } }.into()),
                    (id(9), doc! { "$set": { "list": "no longer a list", "nested": 1 } }.into()),
                    (id(10), doc! { "$set": { "x y": 1, "nested.x-y": 2 } }.into()),
                    (id(11), doc! { "$set": { "items_count": 1, "items": [], "list": [] } }.into()),
                ],
            )],
        ),
        case(
            "new fields",
            vec![insert(
                "c",
                vec![
                    doc! { "_id": 0 },
                    doc! { "_id": 1, "b": 1, "c": 2 },
                    doc! { "_id": 2, "b": 1 },
                ],
            )],
            vec![
                // A copy that reads the last state has all of them, and must not have them in
                // another order for it.
                update("c", vec![(id(0), doc! { "$set": { "b": [1], "nested": [1] } }.into())]),
                update("c", vec![(id(0), doc! { "$set": { "c": -2 } }.into())]),
                update("c", vec![(id(1), doc! { "$unset": { "b": 1 } }.into())]),
                update("c", vec![(id(1), doc! { "$set": { "d": { "e": 1 }, "n": 1 } }.into())]),
                update("c", vec![(id(1), doc! { "$set": { "b": 3 } }.into())]),
                update(
                    "c",
                    vec![
                        (id(2), doc! { "$set": { "z": 1 } }.into()),
                        (id(2), doc! { "$set": { "a": 1, "b": 2 } }.into()),
                    ],
                ),
                update(
                    "c",
                    vec![
                        (id(2), doc! { "$unset": { "z": 1 } }.into()),
                        (id(2), doc! { "$set": { "z": 5 } }.into()),
                    ],
                ),
            ],
        ),
        case(
            "arrays",
            vec![insert("c", numbered(24))],
            vec![update(
                "c",
                vec![
                    (id(0), doc! { "$push": { "list": 6 } }.into()),
                    (
                        id(1),
                        doc! {
                            "$push": { "list": { "$each": [9, 0, 7], "$sort": -1, "$slice": 4 } }
                        }
                        .into(),
                    ),
                    (id(2), doc! { "$push": { "list": { "$each": [], "$slice": 2 } } }.into()),
                    (id(3), doc! { "$push": { "list": { "$each": [8], "$position": 1 } } }.into()),
                    (id(4), doc! { "$push": { "list": { "$each": [], "$slice": -2 } } }.into()),
                    (id(5), doc! { "$pop": { "list": 1 } }.into()),
                    (id(6), doc! { "$pop": { "list": -1 } }.into()),
                    (id(7), doc! { "$pull": { "list": { "$gte": 3 } } }.into()),
                    (id(8), doc! { "$pullAll": { "list": [1, 5] } }.into()),
                    (id(9), doc! { "$addToSet": { "list": { "$each": [1, 9] } } }.into()),
                    (id(10), doc! { "$set": { "list.9": 1 } }.into()),
                    (id(11), doc! { "$unset": { "list.1": 1 } }.into()),
                    (
                        id(12),
                        doc! { "$set": { "list.1": { "a": 1 }, "nested.list.1.k": 5 } }.into(),
                    ),
                    (id(13), doc! { "$set": { "nested.list.$[].k": 7 } }.into()),
                    (
                        id(14),
                        pipeline(vec![doc! {
                            "$set": {
                                "list": { "$concatArrays": [{ "$slice": ["$list", 2] }, [9, 8]] }
                            }
                        }]),
                    ),
                    (
                        id(15),
                        pipeline(vec![doc! {
                            "$set": {
                                "list": { "$slice": ["$list", 1] },
                                "nested.list": { "$slice": ["$nested.list", 1] },
                            }
                        }]),
                    ),
                    (id(16), pipeline(vec![doc! { "$set": { "list": [] } }])),
                    (
                        id(17),
                        doc! {
                            "$push": {
                                "nested.list": { "$each": [{ "k": 0 }], "$sort": { "k": 1 } }
                            }
                        }
                        .into(),
                    ),
                    (id(18), doc! { "$set": { "list.0": Bson::Null, "list.4": [1] } }.into()),
                    (id(19), doc! { "$set": { "list": [[1, 2], [3]] } }.into()),
                    (id(19), doc! { "$set": { "list.0.1": 5, "list.1": [] } }.into()),
                    (id(20), doc! { "$push": { "new": { "$each": [1, 2], "$slice": 1 } } }.into()),
                    (
                        id(21),
                        doc! {
                            "$push": { "list": { "$each": [1], "$slice": 3 } },
                            "$set": { "list2": 1, "nested.list.0.k": 5 },
                        }
                        .into(),
                    ),
                ],
            )],
        ),
        case(
            "pipelines",
            vec![insert("c", numbered(10))],
            vec![update(
                "c",
                vec![
                    (
                        id(0),
                        pipeline(vec![
                            doc! { "$set": { "n": { "$add": ["$n", 1] } } },
                            doc! { "$unset": ["text", "nested.a"] },
                        ]),
                    ),
                    (
                        id(1),
                        pipeline(vec![doc! {
                            "$replaceWith": {
                                "$setField": { "field": "a.b", "input": "$$ROOT", "value": 1 }
                            }
                        }]),
                    ),
                    (id(1), pipeline(vec![doc! { "$set": { "a": { "b": 2 } } }])),
                    (
                        id(1),
                        pipeline(vec![doc! {
                            "$replaceWith": {
                                "$setField": {
                                    "field": "a.b", "input": "$$ROOT", "value": { "c": 3 },
                                }
                            }
                        }]),
                    ),
                    (
                        id(2),
                        pipeline(vec![doc! {
                            "$replaceWith": {
                                "$setField": {
                                    "field": { "$literal": "$price" }, "input": "$$ROOT",
                                    "value": 5,
                                }
                            }
                        }]),
                    ),
                    (
                        id(2),
                        pipeline(vec![doc! {
                            "$replaceWith": {
                                "$setField": {
                                    "field": { "$literal": "$price" }, "input": "$$ROOT",
                                    "value": 6,
                                }
                            }
                        }]),
                    ),
                    (
                        id(3),
                        pipeline(vec![doc! {
                            "$set": {
                                "nested": {
                                    "$setField": { "field": "0.x", "input": "$nested", "value": 1 }
                                }
                            }
                        }]),
                    ),
                    (id(4), pipeline(vec![doc! { "$replaceWith": { "_id": 4, "only": 1 } }])),
                    (
                        id(5),
                        pipeline(vec![
                            doc! { "$replaceWith": { "text": "$text", "_id": 5, "n": "$n" } },
                        ]),
                    ),
                    (
                        id(6),
                        pipeline(vec![doc! {
                            "$set": {
                                "list": { "$map": { "input": "$list", "in": { "v": "$$this" } } }
                            }
                        }]),
                    ),
                    (id(6), pipeline(vec![doc! { "$set": { "list.v": 0 } }])),
                    (
                        id(7),
                        pipeline(vec![doc! { "$set": { "nested": "$$REMOVE", "n": "$$NOW" } }]),
                    ),
                ],
            )],
        ),
        case(
            "replace",
            vec![insert("c", numbered(5))],
            vec![
                update(
                    "c",
                    vec![
                        (id(0), doc! { "only": 1 }.into()),
                        (id(1), doc! {}.into()),
                        (id(2), doc! { "text": "x", "n": 1 }.into()),
                    ],
                ),
                doc! {
                    "update": "c",
                    "updates": [
                        { "q": { "_id": 77 }, "u": { "upserted": 1 }, "upsert": true },
                        { "q": { "k": 1 }, "u": { "$set": { "x": 1 } }, "upsert": true },
                    ],
                },
                doc! {
                    "update": "c",
                    "updates": [
                        { "q": { "_id": "p" }, "u": [{ "$set": { "x": "$_id" } }], "upsert": true }
                    ],
                },
            ],
        ),
        case(
            "delete",
            vec![insert("c", numbered(20))],
            vec![
                doc! {
                    "delete": "c",
                    "deletes": [
                        { "q": { "_id": 3 }, "limit": 1 },
                        { "q": { "n": { "$gt": 15 } }, "limit": 0 },
                    ],
                },
                insert("c", vec![doc! { "_id": 3, "again": true }, doc! { "_id": 16.0 }]),
                doc! { "delete": "c", "deletes": [{ "q": { "_id": 16 }, "limit": 1 }] },
                insert("c", vec![doc! { "_id": 16_i64 }]),
            ],
        ),
        case(
            "findAndModify",
            vec![insert("c", numbered(6))],
            vec![
                doc! {
                    "findAndModify": "c", "query": { "_id": 1 }, "update": { "$set": { "n": 9 } },
                },
                doc! { "findAndModify": "c", "query": { "_id": 2 }, "update": { "replaced": 1 } },
                doc! { "findAndModify": "c", "query": { "_id": 3 }, "remove": true },
                doc! {
                    "findAndModify": "c", "query": { "_id": 44 }, "update": { "$set": { "n": 9 } },
                    "upsert": true,
                },
                doc! {
                    "findAndModify": "c", "query": { "_id": 4 },
                    "update": [{ "$set": { "n": { "$add": ["$n", 1] } } }],
                },
            ],
        ),
        case(
            "multi",
            vec![insert("c", numbered(50))],
            vec![
                doc! {
                    "update": "c",
                    "updates": [
                        {
                            "q": { "n": { "$mod": [2, 0] } },
                            "u": { "$inc": { "n": 100 }, "$push": { "list": 0 } }, "multi": true,
                        }
                    ],
                },
                doc! { "delete": "c", "deletes": [{ "q": { "n": { "$gt": 120 } }, "limit": 0 }] },
            ],
        ),
        case(
            "out",
            vec![
                insert("c", numbered(10)),
                insert("o", numbered(3)),
                doc! {
                    "createIndexes": "o",
                    "indexes": [{ "key": { "n": 1 }, "name": "n", "unique": true }],
                },
            ],
            vec![
                doc! {
                    "aggregate": "c", "pipeline": [{ "$project": { "n": 1 } }, { "$out": "o" }],
                    "cursor": {},
                },
                doc! { "aggregate": "c", "pipeline": [{ "$out": "new" }], "cursor": {} },
                doc! {
                    "aggregate": "c", "pipeline": [{ "$out": { "db": "@2", "coll": "o" } }],
                    "cursor": {},
                },
                update("o", vec![(id(1), doc! { "$set": { "after": 1 } }.into())]),
                doc! {
                    "aggregate": "c", "pipeline": [{ "$match": { "n": 3 } }, { "$out": "o" }],
                    "cursor": {},
                },
                insert("o", vec![doc! { "_id": "after" }]),
            ],
        ),
        case(
            "merge",
            vec![insert("c", numbered(10)), insert("o", numbered(4))],
            vec![
                doc! {
                    "aggregate": "c",
                    "pipeline": [{ "$set": { "merged": true } }, { "$merge": { "into": "o" } }],
                    "cursor": {},
                },
                doc! {
                    "aggregate": "c",
                    "pipeline": [{ "$merge": { "into": "o", "whenMatched": "replace" } }],
                    "cursor": {},
                },
                doc! {
                    "aggregate": "c",
                    "pipeline": [
                        {
                            "$merge": {
                                "into": "o", "whenMatched": [{ "$set": { "both": "$$new.n" } }],
                            },
                        }
                    ],
                    "cursor": {},
                },
                doc! {
                    "aggregate": "c",
                    "pipeline": [{ "$merge": { "into": { "db": "@2", "coll": "o" } } }],
                    "cursor": {},
                },
            ],
        ),
        case(
            "create and drop",
            vec![insert("c", numbered(5)), insert("gone", numbered(5)), doc! { "create": "empty" }],
            vec![
                doc! { "create": "capped", "capped": true, "size": 4096 },
                insert("capped", numbered(5)),
                doc! {
                    "create": "validated", "validator": { "n": { "$gt": 0 } },
                    "collation": { "locale": "en", "strength": 2 },
                },
                doc! { "drop": "gone" },
                doc! { "drop": "empty" },
                doc! { "drop": "c" },
                doc! { "create": "c", "capped": true, "size": 8192 },
                insert("c", vec![doc! { "_id": 1, "second": true }]),
            ],
        ),
        case(
            "drop database",
            vec![
                insert("c", numbered(5)),
                doc! { "create": "v", "viewOn": "c", "pipeline": [] },
                doc! { "create": "w", "timeseries": { "timeField": "t" } },
            ],
            vec![
                doc! { "dropDatabase": 1 },
                insert("v", numbered(3)),
                insert("w", numbered(3)),
                doc! { "create": "c", "viewOn": "v", "pipeline": [] },
            ],
        ),
        case(
            "drop database for good",
            vec![insert("c", numbered(5)), doc! { "create": "v", "viewOn": "c", "pipeline": [] }],
            vec![
                update("c", vec![(id(1), doc! { "$set": { "x": 1 } }.into())]),
                doc! { "dropDatabase": 1 },
            ],
        ),
        case(
            "rename",
            vec![
                insert("a", numbered(30)),
                doc! {
                    "createIndexes": "a",
                    "indexes": [
                        {
                            "key": { "n": 1 }, "name": "n", "unique": true,
                            "expireAfterSeconds": 1000,
                        }
                    ],
                },
            ],
            vec![
                update("a", vec![(id(1), doc! { "$set": { "before": 1 } }.into())]),
                doc! { "renameCollection": "@.a", "to": "@.b" },
                update("b", vec![(id(2), doc! { "$set": { "after": 1 } }.into())]),
                insert("a", vec![doc! { "_id": 1, "new": "a" }]),
                doc! { "renameCollection": "@.b", "to": "@.c" },
                insert("c", vec![doc! { "_id": "c" }]),
            ],
        ),
        case(
            "rename over",
            vec![
                insert("a", numbered(10)),
                insert("b", numbered(20)),
                doc! { "createIndexes": "b", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
            ],
            vec![
                update("b", vec![(id(15), doc! { "$set": { "gone": 1 } }.into())]),
                doc! { "renameCollection": "@.a", "to": "@.b", "dropTarget": true },
                update("b", vec![(id(5), doc! { "$set": { "after": 1 } }.into())]),
            ],
        ),
        case(
            "rename across",
            vec![
                insert("a", numbered(10)),
                doc! { "createIndexes": "a", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
            ],
            vec![
                update("a", vec![(id(5), doc! { "$set": { "before": 1 } }.into())]),
                doc! { "renameCollection": "@.a", "to": "@2.b" },
                insert("a", numbered(3)),
                doc! { "renameCollection": "@.a", "to": "@2.b", "dropTarget": true },
            ],
        ),
        case(
            "rename round",
            vec![insert("a", numbered(10)), insert("b", numbered(5))],
            vec![
                doc! { "renameCollection": "@.a", "to": "@.x" },
                doc! { "renameCollection": "@.b", "to": "@.a" },
                doc! { "renameCollection": "@.x", "to": "@.b" },
                update("a", vec![(id(1), doc! { "$set": { "was": "b" } }.into())]),
                update("b", vec![(id(7), doc! { "$set": { "was": "a" } }.into())]),
            ],
        ),
        case(
            "convert to capped",
            vec![
                insert("a", numbered(50)),
                insert("b", numbered(50)),
                doc! { "createIndexes": "a", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
            ],
            vec![
                doc! { "convertToCapped": "a", "size": 65536 },
                insert("a", vec![doc! { "_id": "after" }]),
                doc! { "cloneCollectionAsCapped": "b", "toCollection": "b2", "size": 65536 },
                insert("b2", vec![doc! { "_id": "after" }]),
            ],
        ),
        case(
            "views",
            vec![
                insert("c", numbered(5)),
                doc! { "create": "v", "viewOn": "c", "pipeline": [] },
                doc! { "create": "v2", "viewOn": "v", "pipeline": [] },
            ],
            vec![
                doc! { "collMod": "v", "viewOn": "c", "pipeline": [{ "$match": { "n": 1 } }] },
                doc! { "drop": "v2" },
                insert("v2", numbered(3)),
                doc! { "create": "v3", "viewOn": "v2", "pipeline": [{ "$sort": { "n": 1 } }] },
                doc! { "drop": "c" },
                doc! { "create": "c", "viewOn": "v2", "pipeline": [] },
            ],
        ),
        case(
            "view to collection and back",
            vec![doc! { "create": "x", "viewOn": "c", "pipeline": [] }, insert("y", numbered(5))],
            vec![
                doc! { "drop": "x" },
                insert("x", numbered(3)),
                update("x", vec![(id(1), doc! { "$set": { "x": 1 } }.into())]),
                doc! { "createIndexes": "x", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
                doc! { "collMod": "x", "validator": { "n": { "$gte": 0 } } },
                update("y", vec![(id(1), doc! { "$set": { "x": 1 } }.into())]),
                doc! { "drop": "x" },
                doc! { "drop": "y" },
                doc! { "create": "x", "viewOn": "y", "pipeline": [] },
                doc! { "create": "y", "timeseries": { "timeField": "t" } },
                insert("y", vec![doc! { "t": DateTime::now(), "x": 1 }]),
            ],
        ),
        case(
            "measurements to collection and back",
            vec![
                doc! { "create": "x", "timeseries": { "timeField": "t", "metaField": "m" } },
                insert("x", vec![doc! { "t": DateTime::now(), "m": 1 }]),
                insert("y", numbered(5)),
            ],
            vec![
                insert(
                    "x",
                    vec![
                        doc! { "t": DateTime::now(), "m": 2 },
                        doc! { "t": DateTime::now(), "m": 1 },
                    ],
                ),
                doc! { "drop": "x" },
                insert("x", numbered(3)),
                doc! { "drop": "y" },
                doc! {
                    "create": "y", "timeseries": { "timeField": "t" },
                    "expireAfterSeconds": 1_000_000,
                },
                insert("y", vec![doc! { "t": DateTime::now(), "x": 1 }]),
                doc! { "collMod": "y", "expireAfterSeconds": "off" },
            ],
        ),
        case(
            "indexes",
            vec![
                insert("c", numbered(20)),
                doc! {
                    "createIndexes": "c",
                    "indexes": [
                        { "key": { "n": 1 }, "name": "old", "unique": true },
                        { "key": { "text": 1 }, "name": "keeps" },
                    ],
                },
            ],
            vec![
                doc! {
                    "createIndexes": "c",
                    "indexes": [
                        { "key": { "nested.a.b": 1 }, "name": "nested" },
                        { "key": { "u": 1 }, "name": "u", "unique": true, "sparse": true },
                    ],
                },
                doc! { "dropIndexes": "c", "index": "old" },
                doc! {
                    "createIndexes": "c",
                    "indexes": [{ "key": { "n": -1 }, "name": "old", "hidden": true }],
                },
                doc! { "dropIndexes": "c", "index": { "nested.a.b": 1 } },
                doc! {
                    "createIndexes": "new",
                    "indexes": [{ "key": { "a": 1 }, "name": "a", "unique": true }],
                },
                insert("new", vec![doc! { "_id": 1, "a": 1 }]),
            ],
        ),
        // Documents that an index refused, made once it was gone; and the other way round.
        case(
            "indexes that documents break",
            vec![
                insert("c", numbered(20)),
                doc! {
                    "createIndexes": "c",
                    "indexes": [
                        { "key": { "p": 1, "q": 1 }, "name": "parallel" },
                        { "key": { "h": "hashed" }, "name": "hashed" },
                        { "key": { "geo": "2dsphere" }, "name": "geo" },
                    ],
                },
            ],
            vec![
                update("c", vec![(id(1), doc! { "$set": { "p": [1, 2] } }.into())]),
                doc! { "dropIndexes": "c", "index": ["parallel", "hashed", "geo"] },
                update(
                    "c",
                    vec![
                        (
                            id(1),
                            doc! { "$set": { "q": [1, 2], "h": [1], "geo": "nowhere" } }.into(),
                        ),
                        (
                            id(2),
                            doc! {
                                "p": [1], "q": [2], "h": [3],
                                "geo": { "type": "Point", "coordinates": "?" },
                            }
                            .into(),
                        ),
                    ],
                ),
                insert("c", vec![doc! { "_id": "new", "p": [1], "q": [2], "h": [1], "geo": 1 }]),
                doc! {
                    "delete": "c", "deletes": [{ "q": { "p": { "$exists": true } }, "limit": 0 }],
                },
                doc! {
                    "createIndexes": "c",
                    "indexes": [{ "key": { "p": 1, "q": 1 }, "name": "parallel" }],
                },
                doc! { "dropIndexes": "c", "index": "parallel" },
                insert("c", vec![doc! { "_id": "newer", "p": [1], "q": [2] }]),
            ],
        ),
        case(
            "unique values move",
            vec![
                doc! {
                    "createIndexes": "c",
                    "indexes": [{ "key": { "u": 1 }, "name": "u", "unique": true }],
                },
                insert("c", (0..10).map(|n| doc! { "_id": n, "u": n }).collect()),
            ],
            {
                let mut values: Vec<i32> = (0..10).collect();
                let mut act = Vec::new();
                for n in 0..9_i32 {
                    let at = n as usize;
                    let (a, b) = (values[at], values[at + 1]);
                    act.push(update(
                        "c",
                        vec![
                            (id(n), doc! { "$set": { "u": 100 } }.into()),
                            (id(n + 1), doc! { "$set": { "u": a } }.into()),
                            (id(n), doc! { "$set": { "u": b } }.into()),
                        ],
                    ));
                    values.swap(at, at + 1);
                    act.push(
                        doc! { "delete": "c", "deletes": [{ "q": { "_id": n }, "limit": 1 }] },
                    );
                    act.push(insert("c", vec![doc! { "_id": n, "u": b, "again": true }]));
                }
                act
            },
        ),
        case(
            "validators",
            vec![insert("c", numbered(5)), doc! { "collMod": "c", "validator": { "never": true } }],
            vec![
                doc! {
                    "insert": "c", "documents": [{ "_id": "breaks it" }],
                    "bypassDocumentValidation": true,
                },
                doc! {
                    "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "x": 1 } } }],
                    "bypassDocumentValidation": true,
                },
                doc! { "collMod": "c", "validator": {}, "validationLevel": "off" },
                update("c", vec![(id(2), doc! { "$set": { "x": 1 } }.into())]),
                doc! { "collMod": "c", "validator": { "x": 1 }, "validationLevel": "strict" },
            ],
        ),
        case(
            "stored functions",
            vec![
                insert("system.js", vec![stored("f", 1), stored("changes", 1), stored("goes", 1)]),
                insert("c", numbered(1)),
            ],
            vec![
                insert("system.js", vec![stored("g", 2)]),
                update(
                    "system.js",
                    vec![(doc! { "_id": "changes" }, doc! { "$set": { "n": 2 } }.into())],
                ),
                doc! { "delete": "system.js", "deletes": [{ "q": { "_id": "goes" }, "limit": 1 }] },
            ],
        ),
        case(
            "stored functions dropped",
            vec![insert("system.js", vec![stored("f", 1)]), insert("c", numbered(1))],
            vec![doc! { "dropDatabase": 1 }, insert("system.js", vec![stored("again", 1)])],
        ),
    ];
    cases.push(case(
        "drop and create in a loop",
        vec![insert("c", numbered(30))],
        (0..15)
            .flat_map(|round| {
                vec![
                    doc! { "drop": "c" },
                    doc! {
                        "create": "c", "collation": { "locale": "en", "strength": 1 + round % 3 },
                    },
                    insert("c", numbered(5 + round)),
                    doc! {
                        "createIndexes": "c",
                        "indexes": [{ "key": { "n": 1 }, "name": "n", "unique": round % 2 == 0 }],
                    },
                    update("c", vec![(id(round % 5), doc! { "$set": { "round": round } }.into())]),
                ]
            })
            .collect(),
    ));
    cases
}
