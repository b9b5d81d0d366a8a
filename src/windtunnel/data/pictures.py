"""Pictures as text: a character for each pixel in raster order, so that bits per byte are bits per dimension."""

from windtunnel.data.corpus import Corpus, Document
from windtunnel.errors import InputError

LEVELS = "0123456789abcdefg"  # 0 to 16


def digits() -> Corpus:
    """The 1,797 handwritten digits of 8 x 8 pixels in 17 grey levels that scikit-learn carries (UCI, Alpaydin and
    Kaynak 1998), without their labels. Raises `InputError` where scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("data digits comes with scikit-learn: pip install 'windtunnel[images]'") from error
    pictures = load_digits().data.astype(int)  # n 64
    documents = [
        Document(f"digit-{index}", "".join(LEVELS[level] for level in picture))
        for index, picture in enumerate(pictures.tolist())
    ]
    source = f"scikit-learn's digits: {len(documents)} pictures of 8 x 8 pixels in 17 grey levels"
    return Corpus("digits", source, documents, alphabet=LEVELS)
