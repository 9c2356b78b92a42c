-- A template's tasks in one state, newest first, whatever else its project's history holds. It takes the place of the index by state and
-- project, so that no step of a task writes more than before; a project's tasks in a state are merged from its templates' newest.
CREATE INDEX tasks_state_template ON tasks (state, project, template, number);
DROP INDEX tasks_state_project;
