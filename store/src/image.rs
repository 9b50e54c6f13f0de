//! All tables as they rest in a snapshot: SwarmKit's `StoreSnapshot`.

use std::{
    io::{self, Write},
    num::NonZero,
    panic::resume_unwind,
    sync::Arc,
    thread,
};

use prost::{
    DecodeError,
    encoding::{self, DecodeContext},
};
use skep_proto::{unknown_field, v1::StoreSnapshot};

use crate::{
    Change, Error, Object, Snapshot,
    table::{Part, Table, Tables},
};

/// Fewer objects than that are not worth a thread.
const OBJECTS_PER_THREAD: usize = 1000;

/// Tables that were read from a snapshot, for [`crate::Store::restore`].
#[derive(Debug)]
pub struct Image(pub(crate) Arc<Tables>);

/// Bytes that [`Snapshot::write_to`] writes at once, at least.
const PIECE_BYTES: usize = 64 * 1024;

impl Snapshot {
    /// The tables as a serialised `StoreSnapshot`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.encoded_len());
        self.write_to(&mut data)
            .expect("memory takes what is written to it");
        data
    }
}

macro_rules! image {
    ($($table:ident = $tag:literal),*) => {
        impl Image {
            /// Reads a serialised `StoreSnapshot`, on all processors and without making the whole
            /// message first.
            ///
            /// Fails with [`Error::CorruptSnapshot`], and with [`Error::Newer`] if a later version
            /// has written what would be lost here.
            pub fn decode(mut data: &[u8]) -> Result<Self, Error> {
                #[derive(Default)]
                struct Fields<'a> { $($table: Vec<&'a [u8]>,)* }
                let mut fields = Fields::default();
                let (whole, mut known) = (data, true);
                while !data.is_empty() {
                    let (tag, wire_type) = encoding::decode_key(&mut data)?;
                    let mut field = data;
                    encoding::skip_field(wire_type, tag, &mut data, DecodeContext::default())?;
                    match tag {
                        $($tag => {
                            encoding::check_wire_type(
                                encoding::WireType::LengthDelimited,
                                wire_type,
                            )?;
                            let len = encoding::decode_varint(&mut field)?;
                            // It has been skipped, so it is there.
                            fields.$table.push(&field[..len as usize]);
                        })*
                        _ => known = false,
                    }
                }
                let tables = Tables { $($table: decode_table(&fields.$table, &mut known)?,)* };
                if !known && let Some(what) = unknown_field("StoreSnapshot", whole) {
                    return Err(Error::Newer { place: "the snapshot".to_owned(), what });
                }
                Ok(Self(Arc::new(tables)))
            }
        }

        impl From<StoreSnapshot> for Image {
            fn from(snapshot: StoreSnapshot) -> Self {
                Self(Arc::new(Tables { $($table: table_of(snapshot.$table),)* }))
            }
        }

        impl Snapshot {
            /// The tables in wire form.
            pub fn to_wire(&self) -> StoreSnapshot {
                StoreSnapshot {
                    $($table: self.tables().$table.objects().values()
                        .map(|object| (**object).clone()).collect(),)*
                }
            }

            /// Bytes of the tables as a serialised `StoreSnapshot`.
            pub fn encoded_len(&self) -> usize {
                let mut len = 0;
                $(for object in self.tables().$table.objects().values() {
                    len += encoding::message::encoded_len($tag, &**object);
                })*
                len
            }

            /// Writes the tables as a serialised `StoreSnapshot`, in pieces: little more than the largest
            /// object lies in memory a second time. Each time gives as many bytes.
            pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                $(for object in self.tables().$table.objects().values() {
                    encoding::message::encode($tag, &**object, &mut piece);
                    if piece.len() >= PIECE_BYTES {
                        out.write_all(&piece)?;
                        piece.clear();
                    }
                })*
                out.write_all(&piece)
            }
        }

        /// What must change to get from `old` to `new`: only objects that differ.
        pub(crate) fn difference(old: &Tables, new: &Tables) -> Vec<Change> {
            let mut changes = Vec::new();
            $(compare(&old.$table, &new.$table, &mut changes);)*
            changes
        }
    };
}

// With the field numbers of `StoreSnapshot`.
image!(
    nodes = 1,
    services = 2,
    networks = 3,
    tasks = 4,
    clusters = 5,
    secrets = 6,
    resources = 7,
    extensions = 8,
    configs = 9,
    volumes = 10
);

fn table_of<T: Object>(objects: Vec<T>) -> Table<T> {
    let mut part = Part::with_capacity(objects.len());
    for object in objects {
        part.push(Arc::new(object));
    }
    Table::of(vec![part])
}

/// Clears `known` if there may be fields that are not known.
fn decode_table<T: Object>(objects: &[&[u8]], known: &mut bool) -> Result<Table<T>, DecodeError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let size = objects.len().div_ceil(threads).max(OBJECTS_PER_THREAD);
    let parts: Result<Vec<_>, _> = thread::scope(|scope| {
        let mut chunks = objects.chunks(size);
        // The first is for this thread.
        let own = chunks.next().unwrap_or_default();
        let others: Vec<_> = chunks
            .map(|chunk| scope.spawn(|| decode_part(chunk)))
            .collect();
        let mut parts = vec![decode_part(own)];
        parts.extend(
            others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))),
        );
        parts.into_iter().collect()
    });
    let (parts, all_known): (_, Vec<_>) = parts?.into_iter().unzip();
    *known &= !all_known.contains(&false);
    Ok(Table::of(parts))
}

/// Also tells whether nothing was left out.
fn decode_part<T: Object>(objects: &[&[u8]]) -> Result<(Part<T>, bool), DecodeError> {
    let mut part = Part::with_capacity(objects.len());
    let mut known = true;
    for object in objects {
        // Made where it stays: a task is two kilobytes to move.
        let mut made = Arc::<T>::default();
        if let Some(made) = Arc::get_mut(&mut made) {
            made.merge(*object)?;
        }
        // What was written by this version, or an older one, is as long again.
        known &= made.encoded_len() == object.len();
        part.push(made);
    }
    Ok((part, known))
}

fn compare<T: Object>(old: &Table<T>, new: &Table<T>, changes: &mut Vec<Change>) {
    use imbl::ordmap::DiffItem;
    changes.extend(old.objects().diff(new.objects()).map(|item| match item {
        DiffItem::Add(_, object) => Change::Create(object.clone().wrap()),
        DiffItem::Update { old, new } => Change::Update {
            old: old.1.clone().wrap(),
            new: new.1.clone().wrap(),
        },
        DiffItem::Remove(_, object) => Change::Remove(object.clone().wrap()),
    }));
}
