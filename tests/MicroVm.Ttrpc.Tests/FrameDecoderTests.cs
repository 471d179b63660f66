using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace MicroVm.Ttrpc.Tests;

public class FrameDecoderTests
{
    [Fact]
    public void Any_split_of_the_stream_gives_the_same_frames()
    {
        Gen<byte[][]> payloads = Gen.ArrayOf(Gen.Choose(0, 9000).Select(n => Enumerable.Range(0, n).Select(i => (byte)(i * 7)).ToArray()));
        Gen<int[]> cuts = Gen.NonEmptyListOf(Gen.Choose(1, 5000)).Select(l => l.ToArray());
        Prop.ForAll(Arb.From(payloads), Arb.From(cuts), (frames, sizes) =>
        {
            byte[] stream = [.. frames.SelectMany((f, i) => Frame((uint)((2 * i) + 1), f))];
            FrameDecoder decoder = new();
            List<(uint Id, byte[] Payload)> seen = [];
            for (int at = 0, turn = 0; at < stream.Length; turn++)
            {
                Span<byte> free = decoder.Free();
                int n = Math.Min(Math.Min(sizes[turn % sizes.Length], free.Length), stream.Length - at);
                stream.AsSpan(at, n).CopyTo(free);
                decoder.Advance(n);
                at += n;
                while (decoder.Read(out FrameHeader h, out ArraySegment<byte> p) == FrameResult.Frame)
                {
                    seen.Add((h.StreamId, p.ToArray()));
                }
            }

            return seen.Count == frames.Length
                && seen.Select((s, i) => s.Id == (2 * i) + 1 && s.Payload.AsSpan().SequenceEqual(frames[i])).All(ok => ok);
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void A_truncated_frame_is_incomplete_at_every_length()
    {
        byte[] frame = Frame(1, new byte[300]);
        for (int n = 0; n < frame.Length; n++)
        {
            FrameDecoder decoder = new();
            frame.AsSpan(0, n).CopyTo(decoder.Free());
            decoder.Advance(n);
            Assert.Equal(FrameResult.Incomplete, decoder.Read(out _, out _));
        }
    }

    [Fact]
    public void A_frame_that_is_too_large_is_told_and_skipped()
    {
        FrameDecoder decoder = new();
        int size = FrameHeader.MaxPayload + 1;
        byte[] head = new byte[FrameHeader.Size];
        new FrameHeader((uint)size, 7, FrameType.Request, 0).Write(head);
        byte[] stream = [.. head, .. new byte[size], .. Frame(9, [1, 2, 3])];
        List<(FrameResult, uint)> seen = [];
        for (int at = 0; at < stream.Length;)
        {
            Span<byte> free = decoder.Free();
            int n = Math.Min(free.Length, stream.Length - at);
            stream.AsSpan(at, n).CopyTo(free);
            decoder.Advance(n);
            at += n;
            FrameResult r;
            while ((r = decoder.Read(out FrameHeader h, out _)) != FrameResult.Incomplete)
            {
                seen.Add((r, h.StreamId));
            }
        }

        Assert.Equal([(FrameResult.TooLarge, 7u), (FrameResult.Frame, 9u)], seen);
    }

    [Fact]
    public void A_claimed_length_reserves_no_memory()
    {
        FrameDecoder decoder = new();
        new FrameHeader(FrameHeader.MaxPayload, 1, FrameType.Request, 0).Write(decoder.Free());
        decoder.Advance(FrameHeader.Size);
        Assert.Equal(FrameResult.Incomplete, decoder.Read(out _, out _));
        Assert.True(decoder.Free().Length <= 4096);
    }

    [Fact]
    public void Garbage_never_throws()
    {
        Prop.ForAll(Arb.From(Gen.ArrayOf(Gen.Choose(0, 255).Select(i => (byte)i))), garbage =>
        {
            FrameDecoder decoder = new();
            foreach (byte b in garbage)
            {
                decoder.Free()[0] = b;
                decoder.Advance(1);
                while (decoder.Read(out _, out ArraySegment<byte> p) != FrameResult.Incomplete)
                {
                    Assert.True(p.Count <= garbage.Length);
                }
            }
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void Header_round_trips()
    {
        byte[] bytes = new byte[FrameHeader.Size];
        FrameHeader header = new(0x01020304, 0x05060708, FrameType.Data, 5);
        header.Write(bytes);
        Assert.Equal([1, 2, 3, 4, 5, 6, 7, 8, 3, 5], bytes);
        Assert.Equal(header, FrameHeader.Read(bytes));
    }

    internal static byte[] Frame(uint id, byte[] payload, FrameType type = FrameType.Request)
    {
        byte[] frame = new byte[FrameHeader.Size + payload.Length];
        new FrameHeader((uint)payload.Length, id, type, 0).Write(frame);
        payload.CopyTo(frame, FrameHeader.Size);
        return frame;
    }
}
