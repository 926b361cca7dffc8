//! A configuration as a tree of texts, each with its line, whether it was TOML or YAML. Whoever
//! converts takes out what it knows; what is left in the end was left out.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use yaml_rust2::Event;
use yaml_rust2::parser::{MarkedEventReceiver, Parser};
use yaml_rust2::scanner::Marker;

use super::ConvertError;

/// Deeper than any real configuration.
const DEPTH_MAX: usize = 32;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    List(Vec<Node>),
    Table(Table),
}

/// Keys in the file's order.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Vec<(String, usize, Node)>,
}

impl Table {
    /// Takes a key's value out.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(name, ..)| name == key)?;
        Some(self.entries.remove(at).2)
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        self.take(key)?.text()
    }

    pub fn list(&mut self, key: &str) -> Vec<Node> {
        self.take(key).map(Node::list).unwrap_or_default()
    }

    pub fn table(&mut self, key: &str) -> Option<Self> {
        self.take(key)?.table()
    }

    /// All entries, in order.
    pub fn entries(self) -> Vec<(String, usize, Node)> {
        self.entries
    }

    /// Keys that nobody took, with their lines.
    pub fn rest(self) -> Vec<(String, usize)> {
        self.entries.into_iter().map(|(key, line, _)| (key, line)).collect()
    }
}

impl Node {
    pub fn text(self) -> Option<String> {
        match self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list; one value alone is a list of itself.
    pub fn list(self) -> Vec<Self> {
        match self.value {
            Value::List(list) => list,
            _ => vec![self],
        }
    }

    pub fn texts(self) -> Vec<String> {
        self.list().into_iter().filter_map(Self::text).collect()
    }

    pub fn table(self) -> Option<Table> {
        match self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// Reads TOML.
pub fn from_toml(text: &str) -> Result<Table, ConvertError> {
    let root = DeTable::parse(text)?;
    of_table(text, root.into_inner(), 0)
}

fn of_table(text: &str, table: DeTable<'_>, depth: usize) -> Result<Table, ConvertError> {
    if depth > DEPTH_MAX {
        return Err(ConvertError::TooDeep);
    }
    let mut entries = Vec::new();
    for (key, value) in table {
        let line = line_of(text, key.span().start);
        entries.push((key.into_inner().into_owned(), line, of_value(text, value, depth + 1)?));
    }
    // The map is sorted by name; the file was not.
    entries.sort_by_key(|(_, line, _)| *line);
    Ok(Table { entries })
}

fn of_value(text: &str, value: Spanned<DeValue<'_>>, depth: usize) -> Result<Node, ConvertError> {
    let line = line_of(text, value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Text(number.as_str().to_owned()),
        DeValue::Float(number) => Value::Text(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Value::Text(truth.to_string()),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(list) => {
            let list = list.into_iter().map(|value| of_value(text, value, depth + 1));
            Value::List(list.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(of_table(text, table, depth + 1)?),
    };
    Ok(Node { line, value })
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Reads YAML: the first document.
pub fn from_yaml(text: &str) -> Result<Table, ConvertError> {
    let mut builder = Builder { open: Vec::new(), root: None, deep: false };
    Parser::new_from_str(text).load(&mut builder, false)?;
    if builder.deep {
        return Err(ConvertError::TooDeep);
    }
    builder.root.and_then(Node::table).ok_or(ConvertError::NoSections)
}

struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    deep: bool,
}

struct Open {
    line: usize,
    /// Of a mapping: a key that waits for its value.
    key: Option<(String, usize)>,
    value: Value,
}

impl Builder {
    fn begin(&mut self, line: usize, value: Value) {
        self.deep |= self.open.len() > DEPTH_MAX;
        if !self.deep {
            self.open.push(Open { line, key: None, value });
        }
    }

    fn end(&mut self) {
        if let Some(Open { line, value, .. }) = self.open.pop() {
            self.place(Node { line, value });
        }
    }

    fn place(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        match (&mut open.value, open.key.take()) {
            (Value::List(list), _) => list.push(node),
            (Value::Table(table), Some((key, line))) => table.entries.push((key, line, node)),
            (Value::Table(_), None) => {
                let line = node.line;
                open.key = Some((node.text().unwrap_or_default(), line));
            }
            (Value::Text(_), _) => {}
        }
    }
}

impl MarkedEventReceiver for Builder {
    fn on_event(&mut self, event: Event, mark: Marker) {
        let line = mark.line();
        match event {
            Event::MappingStart(..) => self.begin(line, Value::Table(Table::default())),
            Event::SequenceStart(..) => self.begin(line, Value::List(Vec::new())),
            Event::MappingEnd | Event::SequenceEnd => self.end(),
            Event::Scalar(text, ..) => self.place(Node { line, value: Value::Text(text) }),
            // Nobody's configuration needs them; a value that is missing is told as such.
            Event::Alias(_) => self.place(Node { line, value: Value::Text(String::new()) }),
            _ => {}
        }
    }
}
