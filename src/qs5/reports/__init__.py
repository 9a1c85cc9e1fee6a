"""Records in, tables out. Imports no model."""
