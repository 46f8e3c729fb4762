"""PHP and Go programs that commit changes, under the roles that the how-to pages grant."""
