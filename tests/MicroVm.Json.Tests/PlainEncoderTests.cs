using System.Text;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;

namespace MicroVm.Json.Tests;

/// <summary>Texts survive the way through JSON, with nothing escaped that need not be.</summary>
public sealed class PlainEncoderTests
{
    [Fact]
    public void Texts_survive() => Prop.ForAll<string>(text =>
    {
        // What is no Unicode is replaced, as everywhere.
        string expected = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text ?? ""));
        return JsonSerializer.Deserialize<string>(Written(text ?? "")) == expected;
    }).QuickCheckThrowOnFailure();

    [Fact]
    public void Names_survive() => Prop.ForAll<NonNull<string>>(name =>
    {
        using JsonDocument document = JsonDocument.Parse(Document(writer =>
        {
            writer.WriteStartObject();
            writer.WriteNumber(name.Get, 1);
            writer.WriteEndObject();
        }));
        return document.RootElement.EnumerateObject().Single().Name == Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(name.Get));
    }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData("plain, and \u00e4\u20ac/<>&'+", "plain, and \u00e4\u20ac/<>&'+")]
    [InlineData("\"\\\n\0\u001f\u007f", "\\\"\\\\\\u000a\\u0000\\u001f\u007f")]
    [InlineData("\ud83d\ude00", "\ud83d\ude00")]
    public void Only_what_must_be_is_escaped(string text, string written)
    {
        Assert.Equal($"\"{written}\"", Written(text));

        // Long ones take other paths in the writer.
        string much = string.Concat(Enumerable.Repeat(text, 300));
        Assert.Equal($"\"{string.Concat(Enumerable.Repeat(written, 300))}\"", Written(much));
    }

    [Fact]
    public void Halves_of_pairs_of_surrogates_are_replaced()
    {
        // Not as arguments: an attribute cannot hold them.
        Assert.Equal("a\ufffd", JsonSerializer.Deserialize<string>(Written("a" + '\ud83d')));
        Assert.Equal("\ufffdb", JsonSerializer.Deserialize<string>(Written('\ude00' + "b")));
    }

    private static string Written(string text) =>
        Encoding.UTF8.GetString(Document(writer => writer.WriteStringValue(text)));

    private static byte[] Document(Action<Utf8JsonWriter> write)
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter writer = new(stream, new JsonWriterOptions { Encoder = PlainEncoder.Instance }))
        {
            write(writer);
        }

        return stream.ToArray();
    }
}
