-- Who asks what somebody did, or where something was done, waits for no walk over the whole log. Most rows tell of tasks that were made: they are
-- left out of the second index, which each task would pay for, and are found without it.
CREATE INDEX audit_of_actor ON audit (actor, id);
CREATE INDEX audit_of_action ON audit (action, id) WHERE action <> 'task.create';
