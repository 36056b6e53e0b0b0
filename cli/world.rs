//! Resources as a coordinator would see them, without one: manifests, compiled policies, and the tables that they are about.
//!
//! In: files and folders of manifests. Out: who would see what. Depots that can be reached are asked for their columns, and nothing else is read
//! of them; of those that cannot, the columns that dataset manifests list are taken, whose types are not known. Deliberately absent: any query,
//! and any way to the rows of a table.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    execution::{SessionState, SessionStateBuilder},
};
use minerva_connectors::Depots;
use minerva_policy::{Explanation, Principal, Rules, explain, explain_names};
use minerva_resources::{Address, PolicyTest, Problem, Problems, ResourceSet, TestSubject, User, closest};
use tokio::runtime::Runtime;

use crate::failure::Failure;

/// How long a depot may take to be opened and listed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of a table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) address: Address,
    pub(crate) schema: SchemaRef,
    /// Whether the depot was asked; else the columns are those that a manifest lists, and their types mean nothing.
    pub(crate) was_opened: bool,
}

/// Resources, their policies, and the tables found so far.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) set: Arc<ResourceSet>,
    pub(crate) rules: Rules,
    depots: Depots,
    session: SessionState,
    runtime: Runtime,
}

/// The tables of a world, and what could not be reached.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) tables: BTreeMap<Address, Table>,
    /// A sentence for each depot or table that could not be looked at.
    pub(crate) unreached: Vec<String>,
}

/// The checks that manifests must pass before they are used.
pub(crate) const CHECKS: [minerva_resources::Check; 2] = [minerva_connectors::check, minerva_policy::check];

impl World {
    /// Reads manifests.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, Failure> {
        let set = minerva_resources::load(paths, &CHECKS).map_err(|problems| unusable(&problems))?;
        Self::of(set)
    }

    /// Makes a world of resources that were read.
    ///
    /// # Errors
    /// If their policies do not compile, or no runtime can be made.
    pub(crate) fn of(set: ResourceSet) -> Result<Self, Failure> {
        let set = Arc::new(set);
        let rules = Rules::compile(&set).map_err(|problems| unusable(&Problems(problems)))?;
        let depots = Depots::new(Arc::clone(&set));
        let memory = minerva_cluster::runtime(None, &depots)
            .map_err(|error| Failure::Failed(format!("the runtime cannot be made: {error}")))?;
        let session = SessionStateBuilder::new()
            .with_runtime_env(memory)
            .with_default_features()
            .build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failure::from)?;
        Ok(Self {
            set,
            rules,
            depots,
            session,
            runtime,
        })
    }

    /// A declared user as policies see them.
    ///
    /// # Errors
    /// If there is none of this id.
    pub(crate) fn principal(&self, id: &str) -> Result<Principal, Failure> {
        let user = self.set.user(id).ok_or_else(|| {
            let near = closest(id, self.set.users().map(|user| user.id.as_str()));
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Failure::Failed(format!("user `{id}` is not declared{near}"))
        })?;
        Ok(principal(user))
    }

    /// Whose view a test is about.
    pub(crate) fn subject(&self, test: &PolicyTest) -> Result<Principal, Failure> {
        match &test.subject {
            TestSubject::User(id) => self.principal(id),
            TestSubject::Somebody { id, tags, attributes } => {
                Ok(Principal::new(id.clone(), tags.iter().cloned(), attributes.clone()))
            }
        }
    }

    /// Every table of every depot, and what manifests declare.
    pub(crate) fn tables(&self) -> Tables {
        let mut found = Tables::default();
        let names: Vec<String> = self.set.depots().map(|depot| depot.meta.name.clone()).collect();
        for name in names {
            let listed = self
                .runtime
                .block_on(async { tokio::time::timeout(PATIENCE, self.list(&name)).await });
            match listed {
                Ok(Ok((tables, unread))) => {
                    found
                        .tables
                        .extend(tables.into_iter().map(|table| (table.address.clone(), table)));
                    found.unreached.extend(unread);
                }
                Ok(Err(why)) => found.unreached.push(format!("depot `{name}` cannot be opened: {why}")),
                Err(_) => found.unreached.push(format!(
                    "depot `{name}` did not answer within {} seconds",
                    PATIENCE.as_secs()
                )),
            }
        }
        for dataset in self.set.datasets().filter(|dataset| dataset.address.is_dataset()) {
            let declared = || self.declared(&dataset.address);
            found.tables.entry(dataset.address.clone()).or_insert_with(declared);
        }
        found
    }

    /// One table: as its depot has it, else as it is declared. The sentence says why it could not be looked at.
    pub(crate) fn table(&self, address: &Address) -> Result<(Table, Option<String>), Failure> {
        if self.set.depot(&address.depot).is_none() {
            return Err(Failure::Failed(format!("there is no depot `{}`", address.depot)));
        }
        let opened = self.runtime.block_on(async {
            let open = async {
                let source = self.depots.open(&address.depot).await?;
                let (collection, dataset) = (&address.collection, &address.dataset);
                source.dataset(collection, dataset, &self.session).await
            };
            tokio::time::timeout(PATIENCE, open).await
        });
        let why = match opened {
            Ok(Ok(Some(table))) => {
                let table = Table {
                    address: address.clone(),
                    schema: table.schema(),
                    was_opened: true,
                };
                return Ok((table, None));
            }
            Ok(Ok(None)) if self.set.dataset(address).is_none() => {
                return Err(Failure::Failed(format!("dataset `{address}` does not exist")));
            }
            Ok(Ok(None)) => "it is declared and not there".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("its depot did not answer within {} seconds", PATIENCE.as_secs()),
        };
        let note = format!("`{address}` could not be looked at, types are not checked: {why}");
        Ok((self.declared(address), Some(note)))
    }

    async fn list(&self, depot: &str) -> minerva_connectors::Result<(Vec<Table>, Vec<String>)> {
        let source = self.depots.open(depot).await?;
        let (mut tables, mut unread) = (vec![], vec![]);
        for collection in source.collections().await? {
            let names = source.datasets(&collection).await?;
            let columns = source.columns(&collection, &names, &self.session).await?;
            for (name, schema) in names.into_iter().zip(columns) {
                let address = Address::new(depot, &collection, name);
                match schema {
                    Ok(Some(schema)) => tables.push(Table {
                        address,
                        schema,
                        was_opened: true,
                    }),
                    Ok(None) => {}
                    Err(error) => unread.push(format!("`{address}` cannot be read: {error}")),
                }
            }
        }
        Ok((tables, unread))
    }

    /// A table as its manifest describes it: the columns that are listed, whatever their types.
    fn declared(&self, address: &Address) -> Table {
        let mut names: Vec<&str> = vec![];
        let columns = self.set.dataset(address).map(|dataset| dataset.columns.as_slice());
        for column in columns.unwrap_or_default() {
            let top = column.name.split('.').next().unwrap_or_default();
            if !names.contains(&top) {
                names.push(top);
            }
        }
        let fields: Vec<_> = names
            .into_iter()
            .map(|name| Field::new(name, DataType::Null, true))
            .collect();
        Table {
            address: address.clone(),
            schema: Arc::new(Schema::new(fields)),
            was_opened: false,
        }
    }

    /// Who sees what of a table and why.
    pub(crate) fn explain(&self, principal: &Principal, table: &Table) -> Explanation {
        let explain = if table.was_opened { explain } else { explain_names };
        explain(&self.rules, principal, &table.address, &table.schema)
    }

    /// The datasets that a statement names; each by its whole name.
    ///
    /// # Errors
    /// If the statement cannot be read, or a name is not whole.
    pub(crate) fn named_in(&self, sql: &str) -> Result<Vec<Address>, Failure> {
        let dialect = datafusion::config::Dialect::Generic;
        let references = (self.session.sql_to_statement(sql, &dialect))
            .and_then(|statement| self.session.resolve_table_references(&statement))
            .map_err(|error| Failure::Failed(error.strip_backtrace()))?;
        references
            .iter()
            .map(|reference| {
                let whole = match (reference.catalog(), reference.schema()) {
                    (Some(catalog), Some(schema)) => Some(Address::new(catalog, schema, reference.table())),
                    _ => reference.table().parse().ok().filter(Address::is_dataset),
                };
                whole.ok_or_else(|| {
                    Failure::Usage(format!(
                        "table `{reference}` is not named as catalog.schema.table; without a coordinator there is no session that has a catalog"
                    ))
                })
            })
            .collect()
    }
}

/// A declared user as policies see them.
pub(crate) fn principal(user: &User) -> Principal {
    Principal::new(user.id.clone(), user.tags.iter().cloned(), user.attributes.clone())
}

fn unusable(problems: &Problems) -> Failure {
    Failure::Failed(format!("the resources are not usable:\n{problems}"))
}

/// Writes `file:line: message` and the help below it.
pub(crate) fn write_problem(problem: &Problem, prefix: &str, out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "{}: {prefix}{}", problem.location, problem.message)?;
    match &problem.help {
        Some(help) => writeln!(out, "  help: {help}"),
        None => Ok(()),
    }
}
