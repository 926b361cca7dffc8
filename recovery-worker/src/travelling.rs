//! Which objects are on their way now, within two bounds: many small ones at once keep S3's latency
//! from deciding how fast the bucket is drained, few large ones fit into memory.

use std::collections::HashMap;

use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use tokio::task::Id;

use crate::bucket::Listed;
use crate::settings::DrainSettings;

/// Objects on their way, within both bounds.
#[derive(Debug)]
pub struct Travelling {
    objects_max: usize,
    bytes_max: u64,
    objects: HashMap<Id, Listed>,
    bytes: u64,
}

impl Travelling {
    #[must_use]
    pub fn new(settings: &DrainSettings) -> Self {
        let objects_max = settings.objects_in_flight as usize;
        let bytes_max = settings.bytes_in_flight.get();
        Self { objects_max, bytes_max, objects: HashMap::new(), bytes: 0 }
    }

    pub fn has_room(&self, next: &Listed) -> bool {
        self.objects.len() < self.objects_max && self.bytes + weight(next) <= self.bytes_max
    }

    pub fn add(&mut self, task: Id, object: Listed) {
        self.bytes += weight(&object);
        self.objects.insert(task, object);
    }

    pub fn remove(&mut self, task: &Id) -> Option<Listed> {
        let object = self.objects.remove(task)?;
        self.bytes -= weight(&object);
        Some(object)
    }

    pub fn objects(&self) -> impl Iterator<Item = &Listed> {
        self.objects.values()
    }
}

/// What an object takes of the room; of one that is too large nothing is read.
fn weight(object: &Listed) -> u64 {
    object.bytes.min(SEALED_OBJECT_BYTES_MAX as u64)
}

#[cfg(test)]
mod tests {
    use spillway_proto::object_key::ObjectKey;
    use spillway_runtime::settings::Size;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn what_is_on_its_way_has_a_bound_in_objects_and_one_in_bytes() {
        let settings = DrainSettings {
            objects_in_flight: 3,
            bytes_in_flight: Size::mib(17),
            ..DrainSettings::default()
        };
        let mut travelling = Travelling::new(&settings);
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut add = |travelling: &mut Travelling, bytes| {
            let key = ObjectKey::parse("spill/0123456789abcdef0123456789abcdef").unwrap();
            let object = Listed { key, etag: String::new(), bytes, modified_ms: 0 };
            let room = travelling.has_room(&object);
            let id = tasks.spawn(async {}).id();
            if room {
                travelling.add(id, object);
            }
            room.then_some(id)
        };
        // Nothing of it would be read, so it counts as the largest that is.
        let large = add(&mut travelling, u64::MAX).unwrap();
        assert!(add(&mut travelling, 2 << 20).is_none(), "its bytes don't fit");
        assert!(add(&mut travelling, 1 << 20).is_some());
        assert!(add(&mut travelling, 0).is_some());
        assert!(add(&mut travelling, 0).is_none(), "three are enough");
        assert!(travelling.remove(&large).is_some());
        assert!(add(&mut travelling, 16 << 20).is_some(), "what arrived makes room");
    }
}
