"""What a run left behind: loaded again, shown new examples, evaluated, exported."""
