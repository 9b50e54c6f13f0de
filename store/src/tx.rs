//! A transaction: reads and writes on the head, which it takes back if it fails.

use std::sync::Arc;

use skep_proto::{
    Timestamp,
    v1::{Extension, Resource, Version},
};

use crate::{AnyObject, By, Change, Error, Kind, Object, table::Tables};

/// What a transaction's closure works on. It reads its own writes; nobody else sees them before they
/// are committed.
#[derive(Debug)]
pub struct Tx {
    tables: Tables,
    version: u64,
    now: Timestamp,
    changes: Vec<Change>,
}

impl Tx {
    pub(crate) fn new(tables: Tables, version: u64, now: Timestamp) -> Self {
        Self {
            tables,
            version,
            now,
            changes: Vec::new(),
        }
    }

    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What it has changed so far, which then stays.
    pub(crate) fn keep(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The tables without what it has changed since the last [`Self::keep`].
    pub(crate) fn take_back(&mut self) -> Tables {
        while let Some(change) = self.changes.pop() {
            change.take_back(&mut self.tables);
        }
        std::mem::take(&mut self.tables)
    }

    /// The time of this transaction, which its writes carry.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The object with this ID.
    pub fn get<T: Object>(&self, id: &str) -> Option<&Arc<T>> {
        T::table(&self.tables).get(id)
    }

    /// All objects of a kind that `by` selects, in no promised order.
    pub fn find<'a, T: Object>(&'a self, by: By<'a>) -> impl Iterator<Item = &'a Arc<T>> + Send {
        T::table(&self.tables).find(by)
    }

    /// Adds an object. Its version and times are set; what it carried there is ignored. Returns it
    /// as stored.
    pub fn create<T: Object>(&mut self, mut object: T) -> Result<Arc<T>, Error> {
        let table = T::table(&self.tables);
        if table.get(object.id()).is_some() {
            return Err(Error::Exists);
        }
        table.check_name(&object)?;
        let meta = object.meta_mut();
        meta.version = Some(Version {
            index: self.version,
        });
        meta.created_at = Some(self.now);
        meta.updated_at = Some(self.now);
        T::table(&self.tables).share(&mut object);
        let object = Arc::new(object);
        let any = object.clone().wrap();
        self.check_extension(&any)?;
        T::table_mut(&mut self.tables).put(object.clone());
        self.changes.push(Change::Create(any));
        Ok(object)
    }

    /// Replaces an object. Its `meta.version` must be that of the stored one, or the writer decided
    /// on something that is no longer so ([`Error::OutOfSequence`]). Returns it as stored.
    pub fn update<T: Object>(&mut self, mut object: T) -> Result<Arc<T>, Error> {
        let old = T::table(&self.tables)
            .get(object.id())
            .ok_or(Error::NotFound)?
            .clone();
        if T::KIND == Kind::Extension {
            return Err(Error::ImmutableExtension);
        }
        if object.version() != old.version() {
            return Err(Error::OutOfSequence);
        }
        T::table(&self.tables).check_name(&object)?;
        let meta = object.meta_mut();
        meta.version = Some(Version {
            index: self.version,
        });
        meta.created_at = old.meta().created_at.or(Some(self.now));
        meta.updated_at = Some(self.now);
        T::table(&self.tables).share(&mut object);
        let object = Arc::new(object);
        T::table_mut(&mut self.tables).put(object.clone());
        self.changes.push(Change::Update {
            old: old.wrap(),
            new: object.clone().wrap(),
        });
        Ok(object)
    }

    /// Removes an object and returns it as it was.
    pub fn remove<T: Object>(&mut self, id: &str) -> Result<Arc<T>, Error> {
        let object = T::table(&self.tables)
            .get(id)
            .ok_or(Error::NotFound)?
            .clone();
        if let AnyObject::Extension(extension) = object.clone().wrap() {
            let kind = By::Is(
                crate::Index::Kind,
                extension.annotations().name.clone().into(),
            );
            if self.find::<Resource>(kind).next().is_some() {
                return Err(Error::ExtensionInUse);
            }
        }
        T::table_mut(&mut self.tables).remove(id);
        self.changes.push(Change::Remove(object.clone().wrap()));
        Ok(object)
    }

    /// A resource needs the extension that it names.
    fn check_extension(&self, object: &AnyObject) -> Result<(), Error> {
        if let AnyObject::Resource(resource) = object
            && self
                .find::<Extension>(By::name(&resource.kind))
                .next()
                .is_none()
        {
            return Err(Error::UnregisteredKind);
        }
        Ok(())
    }
}
