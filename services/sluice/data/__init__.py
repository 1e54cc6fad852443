"""Rows from files, streamed: what evaluations and calibrations are made of, as a signature's inputs take them."""

from sluice.data.columns import Columns
from sluice.data.data_set import DataSet, Session, look
from sluice.data.files import File, files_of
from sluice.data.rows import Column, Rows

__all__ = ["Column", "Columns", "DataSet", "File", "Rows", "Session", "files_of", "look"]
