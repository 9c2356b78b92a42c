-- A project's tasks in one state, newest first, whatever the other projects' history holds. It takes the place of the index by
-- state alone, so that no step of a task writes more than before; all projects' tasks in a state are merged from their newest.
CREATE INDEX tasks_state_project ON tasks (state, project, number);
DROP INDEX tasks_state;
