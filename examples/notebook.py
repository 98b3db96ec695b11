# %% [markdown]
# # underdrawing in a notebook
#
# Editors that know Python cells (VS Code, PyCharm, Spyder) run this file cell by cell, and
# `jupytext --to ipynb examples/notebook.py` turns it into a notebook. Collections, documents and results show
# themselves: leave one at the end of a cell.

# %%
import tempfile

import pyarrow.parquet as pq
from PIL import Image

import underdrawing as ud
from indexer.bundled import CORPUS

# %% [markdown]
# Drawings of faces come with the package, and so does a model that knows them.

# %%
rows = pq.read_table(CORPUS, filters=[("subgroup", "=", "face-smiling")]).to_pylist()
folder = tempfile.TemporaryDirectory()
faces = ud.Collection.open(folder.name, "bundled:emoji-clip", parts="image")
faces.add(
    ud.Document(row["id"], text=row["text"], image=row["image"], fields={"vendor": row["vendor"]}) for row in rows
)

# %%
faces

# %% [markdown]
# A query by text. The table below the cell has rank, score, id, text and fields.

# %%
retriever = ud.Retriever(faces)
results = retriever.search(ud.Query(text="a face with hearts for eyes"), k=5)
results

# %% [markdown]
# The best hit as an image, then what resembles it among another vendor's drawings.

# %%
best = results[0]
Image.open(best.image) if best.image else None

# %%
retriever.search(ud.Query(like=best.id), k=3, where={"vendor": {"$ne": best.fields["vendor"]}})

# %% [markdown]
# How long each step took, in milliseconds, and everything else as plain JSON.

# %%
dict(results.took_ms), results.to_json()["hits"][0]

# %%
faces.close()
folder.cleanup()
