using System.Text.Json;

namespace MicroVm.Json;

/// <summary>A value of a JSON document is not what its row expects. The message is a sentence of ours, whatever the library's are.</summary>
public sealed class MismatchException : JsonException
{
    internal MismatchException(string what, long consumed)
        : base(what) => Consumed = consumed;

    internal MismatchException(string what, string path, long line, long column)
        : base(what, path, line, column)
    {
    }

    /// <summary>Bytes of the document that were read, up to and with the value's first token.</summary>
    internal long Consumed { get; }
}
