//! Edits in the settings of other tools: what is added is added, and everything else in the text stays as it is, with
//! its comments, its order and its layout.
//!
//! A text that cannot be read whole, or has something else where an addition belongs, is refused.

use anyhow::{Context, Result, bail, ensure};
use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstObject, CstRootNode};
use serde_json::Value;
use toml_edit::{DocumentMut, Item, Table, TableLike};

/// JSON as people write it in settings: comments and a comma too many are no errors. Nothing else is let through.
const GRAMMAR: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The text of a JSON file after an edit of its topmost object; what is not there is an empty one.
pub fn edited_json(text: Option<&str>, edit: impl FnOnce(&CstObject) -> Result<()>) -> Result<String> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{}\n");
    let root = CstRootNode::parse(text, &GRAMMAR).context("it is not JSON, so it is left as it is")?;
    let object = root
        .object_value()
        .context("it is no JSON object, so it is left as it is")?;
    edit(&object)?;
    Ok(root.to_string())
}

/// The object at a key, made when it is not there.
pub fn object_at(object: &CstObject, key: &str) -> Result<CstObject> {
    ensure_single(object, key)?;
    object
        .object_value_or_create(key)
        .with_context(|| format!("{key} is no object"))
}

/// The array at a key, made when it is not there.
pub fn array_at(object: &CstObject, key: &str) -> Result<CstArray> {
    ensure_single(object, key)?;
    object
        .array_value_or_create(key)
        .with_context(|| format!("{key} is no array"))
}

/// The value at a key.
pub fn value_at(object: &CstObject, key: &str) -> Result<Option<Value>> {
    ensure_single(object, key)?;
    Ok(object.get(key).and_then(|property| property.value()?.to_serde_value()))
}

/// Gives a key a value.
pub fn set(object: &CstObject, key: &str, value: CstInputValue) {
    match object.get(key) {
        Some(property) => property.set_value(value),
        None => drop(object.append(key, value)),
    }
}

/// Adds an element to an array that does not have it.
pub fn add(array: &CstArray, element: &Value) {
    let mut elements = array.elements().into_iter();
    if !elements.any(|known| known.to_serde_value().as_ref() == Some(element)) {
        array.ensure_multiline();
        array.append(input(element));
    }
}

/// Readers differ in which of two equal keys counts.
fn ensure_single(object: &CstObject, key: &str) -> Result<()> {
    let named = |name: Option<String>| name.as_deref() == Some(key);
    let count = object
        .properties()
        .iter()
        .filter(|property| named(property.decoded_name()))
        .count();
    ensure!(count <= 1, "{key} is there {count} times");
    Ok(())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

/// The text of a TOML file after an edit of the value at a path of tables, which are made when they are not there.
pub fn edited_toml(
    text: Option<&str>,
    path: &[&str],
    key: &str,
    edit: impl FnOnce(Option<&str>) -> String,
) -> Result<String> {
    let mut document: DocumentMut = text
        .unwrap_or_default()
        .parse()
        .context("it is not TOML, so it is left as it is")?;
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for name in path {
        let item = table.entry(name).or_insert_with(|| {
            let mut table = Table::new();
            // A heading of its own only if it gets a value.
            table.set_implicit(true);
            Item::Table(table)
        });
        table = item
            .as_table_like_mut()
            .with_context(|| format!("{name} is no table"))?;
    }
    let old = match table.get(key) {
        None => None,
        Some(item) => Some(item.as_str().with_context(|| format!("{key} is no string"))?),
    };
    let new = edit(old);
    if old != Some(&new) {
        table.insert(key, toml_edit::value(new));
    }
    let text = document.to_string();
    if text.parse::<DocumentMut>().is_err() {
        bail!("its {} cannot take {key}", path.join("."));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_hook(text: Option<&str>) -> Result<String> {
        edited_json(text, |top| {
            let list = array_at(&object_at(top, "hooks")?, "Before")?;
            add(&list, &json!({ "command": "x \"y\"" }));
            Ok(())
        })
    }

    #[test]
    fn what_is_there_keeps_its_layout_its_order_and_its_remarks() {
        let old = "{\n\t// mine\n\t\"z\": 1, \"a\": [1,2],\n\t\"hooks\": {\"Other\": [{}]},\n}\r\n";
        let new = with_hook(Some(old)).expect("edited");
        for kept in ["\t// mine\n\t\"z\": 1, \"a\": [1,2],\n", "\"Other\": [{}]", "}\r\n"] {
            assert!(new.contains(kept), "{kept:?} is kept in {new}");
        }
        assert!(new.contains(r#""command": "x \"y\"""#), "{new}");
        assert_eq!(
            with_hook(Some(&new)).expect("again"),
            new,
            "what is there is not added again"
        );
        let fresh = with_hook(None).expect("made");
        let value: Value = serde_json::from_str(&fresh).expect("JSON");
        assert_eq!(value, json!({ "hooks": { "Before": [{ "command": "x \"y\"" }] } }));
        assert_eq!(with_hook(Some(" \n")).expect("made"), fresh);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "{",
            "[]",
            "{} {}",
            "{'hooks': {}}",
            "{hooks: {}}",
            "{\"a\" 1}",
            "{\"hooks\": []}",
            "{\"hooks\": null}",
            "{\"hooks\": {\"Before\": {}}}",
            "{\"hooks\": {}, \"hooks\": {}}",
            "\u{0}",
        ] {
            assert!(with_hook(Some(bad)).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(
            with_hook(Some(&deep)).is_err(),
            "a deep nesting is an error, and no crash"
        );
    }

    #[test]
    fn a_toml_file_keeps_everything_else() {
        let edit = |text| {
            edited_toml(text, &["policy", "set"], "PATH", |old| {
                format!("/s:{}", old.unwrap_or("/b"))
            })
        };
        let once = |old: Option<&str>| old.unwrap_or("/b").to_owned();
        assert_eq!(edit(None).expect("made"), "[policy.set]\nPATH = \"/s:/b\"\n");
        let inline = edit(Some(
            "a = 1 # one\n[policy]\nset = { X = \"1\", PATH = \"/p\" } # mine\n",
        ))
        .expect("edited");
        assert_eq!(
            inline,
            "a = 1 # one\n[policy]\nset = { X = \"1\", PATH = \"/s:/p\" } # mine\n"
        );
        let same = edited_toml(Some(&inline), &["policy", "set"], "PATH", once).expect("unchanged");
        assert_eq!(same, inline);
        for bad in ["a = ", "policy = 1\n", "[policy]\nset = { PATH = 1 }\n", "[[policy]]\n"] {
            assert!(edit(Some(bad)).is_err(), "{bad}");
        }
    }
}
