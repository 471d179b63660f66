using System.Text.Encodings.Web;

namespace MicroVm.Json;

/// <summary>
/// Escapes what JSON wants escaped (RFC 8259, section 7), and nothing more. The library's encoders also escape what HTML and scripts
/// would trip over, and set tables of all characters up for it, which a short-lived process pays for each time.
/// </summary>
public sealed unsafe class PlainEncoder : JavaScriptEncoder
{
    private const int Escape = 6;

    /// <summary>The one instance.</summary>
    public static readonly PlainEncoder Instance = new();

    private PlainEncoder()
    {
    }

    /// <inheritdoc/>
    public override int MaxOutputCharactersPerInputCharacter => Escape;

    /// <inheritdoc/>
    public override bool WillEncode(int unicodeScalar) => unicodeScalar is < ' ' or '"' or '\\';

    /// <inheritdoc/>
    public override int FindFirstCharacterToEncode(char* text, int textLength)
    {
        // Half of a pair of surrogates is not text; whole ones pay for it.
        for (int i = 0; i < textLength; i++)
        {
            if (WillEncode(text[i]) || char.IsSurrogate(text[i]))
            {
                return i;
            }
        }

        return -1;
    }

    /// <inheritdoc/>
    public override int FindFirstCharacterToEncodeUtf8(ReadOnlySpan<byte> utf8Text)
    {
        for (int i = 0; i < utf8Text.Length; i++)
        {
            if (WillEncode(utf8Text[i]))
            {
                return i;
            }
        }

        return -1;
    }

    /// <inheritdoc/>
    public override bool TryEncodeUnicodeScalar(int unicodeScalar, char* buffer, int bufferLength, out int numberOfCharactersWritten)
    {
        int length = unicodeScalar is '"' or '\\' ? 2 : Escape;
        if (bufferLength < length)
        {
            numberOfCharactersWritten = 0;
            return false;
        }

        buffer[0] = '\\';
        if (length == 2)
        {
            buffer[1] = (char)unicodeScalar;
        }
        else
        {
            buffer[1] = 'u';
            for (int i = 2, shift = 12; i < Escape; i++, shift -= 4)
            {
                buffer[i] = "0123456789abcdef"[(unicodeScalar >> shift) & 0xf];
            }
        }

        numberOfCharactersWritten = length;
        return true;
    }
}
