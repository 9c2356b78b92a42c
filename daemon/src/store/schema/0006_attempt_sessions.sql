-- The session of the runner process that began an attempt; NULL before, and for one that did not say. A copy of a runner, which
-- has the same token and gets the same jobs, is told by it.
ALTER TABLE attempts ADD COLUMN session TEXT;
