"""Runs the sessions of a verification on another machine, over ssh; the judging stays here."""
