//! An interface printed back, close to how the IDL wrote it, with its documentation.
//!
//! What Cap'n Proto's schema does not tell is not there: lock modes, and which pointers are
//! optional.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::schema::{Body, Member, Method, Node, Schema, Type};

impl Schema {
    /// The interface, and after it the plain types that its methods use.
    pub(crate) fn interface_text(&self, interface: u64) -> String {
        let mut printer = Printer {
            schema: self,
            text: String::new(),
            used: Vec::new(),
            seen: BTreeSet::new(),
            exceptions: BTreeSet::new(),
        };
        for (index, id) in self.ancestry(interface).into_iter().enumerate() {
            if index > 0 {
                printer.text.push('\n');
            }
            printer.interface(id);
        }
        let mut next = 0;
        while let Some(id) = printer.used.get(next).copied() {
            printer.plain(id);
            next += 1;
        }
        printer.text
    }

    /// A method as in the IDL: `withdraw(amount: i64) -> i64 raises bank.InsufficientFunds`.
    pub(crate) fn signature(&self, method: &Method) -> String {
        let params = self
            .parameters(method)
            .map_or(&[][..], |(_, members)| members);
        let mut text = format!("{}({})", method.name.idl, self.declarations(params));
        if let Some(value) = self.result(method, "value") {
            let _ = write!(text, " -> {}", self.member_type(value));
        }
        let raises: Vec<_> = self.raises(method).map(Node::qualified).collect();
        if !raises.is_empty() {
            let _ = write!(text, " raises {}", raises.join(", "));
        }
        text
    }

    /// `from: reference, amount: i64`
    pub(crate) fn declarations(&self, members: &[Member]) -> String {
        let texts: Vec<_> = members
            .iter()
            .map(|member| self.declaration(member))
            .collect();
        texts.join(", ")
    }

    fn declaration(&self, member: &Member) -> String {
        format!("{}: {}", member.name.idl, self.member_type(member))
    }

    fn member_type(&self, member: &Member) -> String {
        let ty = self.type_text(&member.ty);
        match member.optional {
            Some(_) => format!("option<{ty}>"),
            None => ty,
        }
    }
}

struct Printer<'s> {
    schema: &'s Schema,
    text: String,
    /// Plain types to print, each once.
    used: Vec<u64>,
    seen: BTreeSet<u64>,
    exceptions: BTreeSet<u64>,
}

impl Printer<'_> {
    fn interface(&mut self, id: u64) {
        let schema = self.schema;
        let (Some(node), Some(interface)) = (schema.node(id), schema.interface(id)) else {
            return;
        };
        self.docs("", &node.docs);
        let state = schema.nested(id, "State");
        let kind = if state.is_some() {
            "persistent interface"
        } else {
            "interface"
        };
        let bases = interface.bases.iter().filter_map(|base| schema.node(*base));
        let bases: Vec<_> = bases.map(Node::qualified).collect();
        let bases = if bases.is_empty() {
            String::new()
        } else {
            format!(": {}", bases.join(", "))
        };
        self.line(&format!("{kind} {}{bases} {{", node.qualified()));
        if let Some(Body::Struct(state)) = state.map(|state| &state.body) {
            let own = state
                .members
                .iter()
                .filter(|member| member.name.wire != "base");
            let own: Vec<_> = own.collect();
            if !own.is_empty() {
                self.line("    state {");
                own.into_iter()
                    .for_each(|member| self.member("        ", member));
                self.line("    }");
            }
        }
        if let Some(new) = schema.nested(id, "New")
            && let Body::Struct(body) = &new.body
        {
            // The first line is the generator's.
            self.docs("    ", new.docs.get(1..).unwrap_or_default());
            body.members.iter().for_each(|member| self.uses(&member.ty));
            self.line(&format!("    new({});", schema.declarations(&body.members)));
        }
        for method in &interface.methods {
            self.method(method);
        }
        self.line("}");
    }

    fn method(&mut self, method: &Method) {
        let schema = self.schema;
        self.docs("    ", &method.docs);
        self.line(&format!("    fn {};", schema.signature(method)));
        let params = schema
            .parameters(method)
            .map_or(&[][..], |(_, members)| members);
        params.iter().for_each(|member| self.uses(&member.ty));
        if let Some(value) = schema.result(method, "value") {
            self.uses(&value.ty);
        }
        for exception in schema.raises(method) {
            self.exceptions.insert(exception.id);
            self.uses(&Type::Struct(exception.id));
        }
    }

    fn uses(&mut self, ty: &Type) {
        match ty {
            Type::Struct(id) | Type::Enum(id) => {
                if self.seen.insert(*id) {
                    self.used.push(*id);
                }
            }
            Type::List(element) => self.uses(element),
            Type::Map(id) | Type::Option(id) => {
                // Made-up structs are looked into, once each.
                if self.seen.insert(*id) {
                    let members = self.schema.structure(*id).map(|found| &found.members);
                    members
                        .into_iter()
                        .flatten()
                        .for_each(|member| self.uses(&member.ty));
                }
            }
            Type::Void
            | Type::Bool
            | Type::Int(_)
            | Type::F32
            | Type::F64
            | Type::Text
            | Type::Bytes
            | Type::Uid
            | Type::Reference
            | Type::Interface(_)
            | Type::Other => {}
        }
    }

    fn plain(&mut self, id: u64) {
        let Some(node) = self.schema.node(id) else {
            return;
        };
        self.text.push('\n');
        self.docs("", &node.docs);
        match &node.body {
            Body::Struct(found) => {
                let kind = match found.union {
                    Some(_) => "union",
                    None if self.exceptions.contains(&id) => "exception",
                    None => "struct",
                };
                self.line(&format!("{kind} {} {{", node.qualified()));
                found
                    .members
                    .iter()
                    .for_each(|member| self.member("    ", member));
                self.line("}");
            }
            Body::Enum(values) => {
                self.line(&format!("enum {} {{", node.qualified()));
                for value in values {
                    self.docs("    ", &value.docs);
                    self.line(&format!("    {},", value.name.idl));
                }
                self.line("}");
            }
            Body::Interface(_) | Body::Other => {}
        }
    }

    fn member(&mut self, indent: &str, member: &Member) {
        self.uses(&member.ty);
        self.docs(indent, &member.docs);
        let text = match member.ty {
            Type::Void => member.name.idl.clone(),
            _ => self.schema.declaration(member),
        };
        self.line(&format!("{indent}{text},"));
    }

    fn docs(&mut self, indent: &str, docs: &[String]) {
        for line in docs {
            self.line(format!("{indent}/// {line}").trim_end());
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}
