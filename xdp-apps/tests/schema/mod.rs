//! A checker for the JSON schemas of this project.
#![allow(unreachable_pub, reason = "shared by tests")]

use serde_json::{Value, json};

/// Whether `value` is what `schema` describes, for the words that our schema uses; any other is an error, so that none is
/// believed to be checked that is not.
pub fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fail = |what: String| Err(format!("{at}: {what}"));
    for (word, rule) in schema.as_object().ok_or("a schema is an object")? {
        match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => (),
            "$ref" => {
                let pointer = rule.as_str().and_then(|name| name.strip_prefix('#')).ok_or("a local $ref")?;
                check(root, root.pointer(pointer).ok_or("a $ref to something")?, value, at)?;
            }
            "type" => {
                let is = |name: &Value| match name.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("boolean") => value.is_boolean(),
                    Some("null") => value.is_null(),
                    Some("number") => value.is_number(),
                    Some("integer") => value.is_u64() || value.is_i64(),
                    _ => panic!("no type {name}"),
                };
                if !rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is)) {
                    return fail(format!("not of type {rule}"));
                }
            }
            "const" if value != rule => return fail(format!("not {rule}")),
            "enum" if !rule.as_array().ok_or("a list")?.contains(value) => {
                return fail(format!("not one of {rule}"));
            }
            "minimum" if value.is_number() && value.as_f64() < rule.as_f64() => {
                return fail(format!("below {rule}"));
            }
            "const" | "enum" | "minimum" => (),
            "oneOf" => {
                let results: Vec<_> =
                    rule.as_array().ok_or("a list")?.iter().map(|one| check(root, one, value, at)).collect();
                if results.iter().filter(|result| result.is_ok()).count() != 1 {
                    return fail(format!("not exactly one of {results:?}"));
                }
            }
            "required" => {
                let missing = |name: &&Value| name.as_str().is_none_or(|name| value.get(name).is_none());
                if let Some(name) = rule.as_array().ok_or("a list")?.iter().find(missing) {
                    return fail(format!("{name} is missing"));
                }
            }
            "dependentRequired" => {
                for (name, needed) in rule.as_object().ok_or("an object")? {
                    let missing = needed
                        .as_array()
                        .ok_or("a list")?
                        .iter()
                        .find(|other| other.as_str().is_none_or(|other| value.get(other).is_none()));
                    if let (Some(_), Some(other)) = (value.get(name), missing) {
                        return fail(format!("{name} without {other}"));
                    }
                }
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(name) {
                        check(root, rule, inner, &format!("{at}/{name}"))?;
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(*rule, json!(false));
                let known = |name: &str| schema["properties"].get(name).is_some();
                if let Some(name) =
                    value.as_object().into_iter().flatten().map(|entry| entry.0).find(|name| !known(name))
                {
                    return fail(format!("{name} is not a word of it"));
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{n}"))?;
                }
            }
            word => panic!("the check does not know {word}"),
        }
    }
    Ok(())
}
