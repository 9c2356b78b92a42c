-- Since when a one-off runner that came back under its name waits for a task; NULL is since it registered.
ALTER TABLE runners ADD COLUMN begun_at INTEGER;

-- What one look a day used cost every delivery: the targets of a subject are few, and each is found by deliveries_order.
DROP INDEX deliveries_subject;
