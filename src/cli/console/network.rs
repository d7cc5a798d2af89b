//! The network settings of this host in the TOML, as the console changes them.
//!
//! Owns: the edit, which leaves the rest of the file as it is, comments too. Called by: `console`.
//! Never: writes a file that would not load.

use std::path::Path;

use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::menu::Network;
use crate::config::load::parse;

/// The file's text with this host's interface set up so; or why that makes no good file.
pub(super) fn edit(path: &Path, text: &str, host: &str, network: &Network) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("the file is not TOML: {error}"))?;
    let mut interface = Table::new();
    match &network.address {
        None => drop(interface.insert("dhcp", value(true))),
        Some(address) => {
            interface.insert("address", value(Array::from_iter([address])));
            if let Some(gateway) = network.gateway {
                interface.insert("gateway", value(gateway.to_string()));
            }
        }
    }
    table(&mut document, &["hosts", host, "network"])?.insert(&network.interface, Item::Table(interface));
    if !network.servers.is_empty() {
        let servers: Array = network.servers.iter().map(ToString::to_string).collect();
        table(&mut document, &["hosts", host, "dns"])?.insert("servers", value(servers));
    }
    let text = document.to_string();
    match parse(path, &text, &[]) {
        Ok(_) => Ok(text),
        Err(faults) => Err(faults.render(false)),
    }
}

/// The table at this path, made where it is missing.
fn table<'a>(document: &'a mut DocumentMut, path: &[&str]) -> Result<&'a mut Table, String> {
    let mut table = document.as_table_mut();
    for name in path {
        let item = table.entry(name).or_insert_with(|| {
            let mut new = Table::new();
            new.set_implicit(true);
            Item::Table(new)
        });
        // `hosts.a = { … }` is as good; it is made a table of its own to be added to.
        if let Item::Value(toml_edit::Value::InlineTable(inline)) = item {
            *item = Item::Table(std::mem::take(inline).into_table());
        }
        table = item.as_table_mut().ok_or_else(|| format!("`{name}` in the file is no table"))?;
    }
    Ok(table)
}
