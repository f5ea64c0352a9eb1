"""RDF below its readers and writers: terms, statements to tables, tables to statements."""
