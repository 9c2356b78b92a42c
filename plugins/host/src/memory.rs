//! How much memory a call holds. A refusal is an error and not a failed growth, so that the message names the limit and
//! does not end as the guest's own "out of memory".

use wasmtime::ResourceLimiter;

use crate::Memory;
use crate::limits::{INSTANCES_MAX, MEMORIES_MAX, POOL_MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::trap::Stop;

/// Counts what one store holds.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit_bytes: u64,
    held_bytes: u64,
    table_elements: usize,
    /// The most that one memory may have: a pool's slots have an end.
    memory_bytes_max: usize,
}

impl MemoryLimiter {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, held_bytes: 0, table_elements: 0, memory_bytes_max: usize::MAX }
    }

    /// Counts for a call whose memory comes from there.
    pub(crate) fn takes_from(&mut self, memory: Memory) {
        self.memory_bytes_max = match memory {
            Memory::OnDemand => usize::MAX,
            Memory::Pool { .. } => POOL_MEMORY_BYTES_MAX,
        };
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let held = self.held_bytes.saturating_add(more);
        if held > self.limit_bytes {
            return Err(wasmtime::Error::new(Stop::Memory));
        }
        // Otherwise the pool would refuse it, and the guest would only see that its memory does not grow.
        if desired > self.memory_bytes_max {
            return Err(wasmtime::Error::new(Stop::PoolMemory));
        }
        self.held_bytes = held;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let held = self.table_elements.saturating_add(desired.saturating_sub(current));
        if held > TABLE_ELEMENTS_MAX {
            return Err(wasmtime::Error::new(Stop::TableElements));
        }
        self.table_elements = held;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
