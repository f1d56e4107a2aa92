"""Inference protocols: how requests become rows, and answers and errors become bytes.

A protocol module has ``parse(body, …) -> Ask`` (also used by the collector, which reads recorded bodies
again) and encoders for its answers and errors. None of them knows HTTP beyond a status number.
"""
